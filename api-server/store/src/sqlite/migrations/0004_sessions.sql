-- Who is logged in, so that a process that begins again knows it.
CREATE TABLE sessions (
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- Of the token's secret.
    hash BLOB NOT NULL,
    ends_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, hash)
) STRICT, WITHOUT ROWID;
