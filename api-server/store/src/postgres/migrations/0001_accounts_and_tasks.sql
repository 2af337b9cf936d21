-- E-mails compare without case. What that means beyond ASCII depends on a database's locale, so the API folds them (email_key).
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL,
    email_key text NOT NULL CONSTRAINT users_email_key UNIQUE,
    name text,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What /api/ready writes and reads back: a row an instance.
CREATE TABLE readiness (
    instance bigint PRIMARY KEY,
    token bigint NOT NULL,
    written_at timestamptz NOT NULL
);

-- An id is the second of created_at (from 2020 on), 15 bits of this sequence and 6 bits of shard; api-server/src/id.rs says why, and
-- task_id, which makes one, is made when the shard is known. CACHE keeps sessions from queueing for the sequence; it costs holes, and the
-- order within a second.
CREATE SEQUENCE task_id_seq AS bigint CACHE 32;

-- The second that an id carries, in which its row's created_at is.
CREATE FUNCTION task_second(id bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_timestamp((id >> 21) + 1577836800)
$$;

-- timestamptz, not timestamp: the other one has no zone, and means another instant wherever the server's setting differs.
-- No foreign key to users: with shards by user, they are in another database.
CREATE TABLE tasks (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    title varchar(255) NOT NULL,
    description text,
    status varchar(20) NOT NULL CHECK (status IN ('pending', 'in_progress', 'completed')),
    priority varchar(20) NOT NULL CHECK (priority IN ('low', 'medium', 'high', 'urgent')),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    due_date timestamptz,
    -- coalesce: the concatenation with a description that is NULL is NULL, and such tasks would never be found.
    search tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('english', title || ' ' || coalesce(description, ''))) STORED,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);

-- Takes what no month was made for, so that no insert is ever refused. It is empty unless upkeep failed for months.
CREATE TABLE tasks_default PARTITION OF tasks DEFAULT;

-- Pages of a user's tasks. With the id, a page that begins amid tasks of one microsecond is a range of the index too.
CREATE INDEX idx_tasks_user_id ON tasks (user_id, created_at DESC, id DESC);

-- On (status) alone, every user's open tasks would have to be sifted for one user's. With the user in front it serves the lists that ask for
-- a priority among what is open, which is what people look for.
CREATE INDEX idx_tasks_status ON tasks (user_id, priority, created_at DESC, id DESC) WHERE status <> 'completed';

-- Lists by status; counts by status and priority from the index alone.
CREATE INDEX idx_tasks_covering ON tasks (user_id, status, created_at DESC, id DESC) INCLUDE (title, priority, due_date);

-- With the user in it, one user's matches are found without sifting everyone's. btree_gin gives GIN the operators for a bigint.
CREATE EXTENSION IF NOT EXISTS btree_gin;
CREATE INDEX idx_tasks_search ON tasks USING gin (user_id, search);
