-- What `task-api import-sqlite` brought here, and from which file: see api-server/src/store/import.rs.
CREATE TABLE imported_accounts (
    source text NOT NULL,
    source_id bigint NOT NULL,
    user_id bigint NOT NULL REFERENCES users (id),
    PRIMARY KEY (source, source_id)
);

-- The tasks of all rows of the source up to this one are here, if their users are.
CREATE TABLE imported_tasks (
    source text PRIMARY KEY,
    up_to bigint NOT NULL
);
