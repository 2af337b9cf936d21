-- Which shard this database is, and of how many. It is told when the database is first prepared, and is for good: its users' ids and its tasks' ids
-- say so.
CREATE TABLE shard (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    number integer NOT NULL CHECK (number >= 0 AND number < shards),
    shards integer NOT NULL CHECK (shards BETWEEN 1 AND 64)
);

-- Makes this database shard `this_number` of `all_shards`, unless it is one already, and returns what it is.
CREATE FUNCTION become_shard(this_number integer, all_shards integer) RETURNS shard LANGUAGE plpgsql AS $$
DECLARE
    this shard;
BEGIN
    INSERT INTO shard (number, shards) VALUES (this_number, all_shards) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        EXECUTE format('ALTER TABLE users ALTER COLUMN id SET START WITH %s SET INCREMENT BY %s RESTART',
            CASE this_number WHEN 0 THEN all_shards ELSE this_number END, all_shards);
        -- The number is a constant in it, not a look-up an id.
        -- `at` is the row's created_at.
        EXECUTE format('CREATE FUNCTION task_id(at timestamptz) RETURNS bigint LANGUAGE sql VOLATILE AS $f$
            SELECT ((floor(extract(epoch FROM at))::bigint - 1577836800) << 21) | ((nextval(''task_id_seq'') & 32767) << 6) | %s
        $f$', this_number);
    END IF;
    SELECT * FROM shard INTO this;
    RETURN this;
END
$$;
