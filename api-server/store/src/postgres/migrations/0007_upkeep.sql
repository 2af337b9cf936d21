-- Takes the months out of tasks that ended longer than `keep` ago, and returns how many there were. Their tables stay, under their names, for an
-- operator to archive or drop. DETACH … CONCURRENTLY is not for functions or transactions, and this goes through a pooler; the other DETACH locks
-- tasks, for a moment that does not depend on how many rows there are.
CREATE FUNCTION detach_task_partitions(keep interval) RETURNS integer LANGUAGE plpgsql
    -- Detaching waits for readers of tasks, and everyone else for it: rather try again later.
    SET lock_timeout = '2s'
AS $$
DECLARE
    month regclass;
    detached integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7234116, 2) THEN
        RETURN 0;
    END IF;
    FOR month IN
        SELECT c.oid FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid
        WHERE inhparent = 'tasks'::regclass AND c.relname ~ '^tasks_[0-9]{4}_[0-9]{2}$'
            AND (to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC' <= now() - keep
        ORDER BY c.relname
    LOOP
        EXECUTE format('ALTER TABLE tasks DETACH PARTITION %s', month);
        detached := detached + 1;
    END LOOP;
    RETURN detached;
END
$$;
