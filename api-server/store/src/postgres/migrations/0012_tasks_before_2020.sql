-- As in migration 1, but the second that an id carries has a sign, in two's complement of 32 bits: tasks of before 2020, which are imported, have
-- the upper half of the ids. task_id stays as it is, since it makes the ids of new tasks alone.
CREATE OR REPLACE FUNCTION task_second(id bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_timestamp((id >> 21) - CASE WHEN id < 4503599627370496 THEN 0 ELSE 4294967296 END + 1577836800)
$$;
