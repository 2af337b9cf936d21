-- What `task-api import-sqlite` brought here, and from which file: see api-server/src/store/import.rs.
CREATE TABLE imported_accounts (
    source TEXT NOT NULL,
    source_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL REFERENCES users (id),
    PRIMARY KEY (source, source_id)
) STRICT, WITHOUT ROWID;

-- The tasks of all rows of the source up to this one are here.
CREATE TABLE imported_tasks (
    source TEXT PRIMARY KEY,
    up_to INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
