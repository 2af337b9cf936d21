-- Makes the partition of the month that holds `at`, unless it is there, and returns whether it was missing.
CREATE FUNCTION make_task_partition(at timestamptz) RETURNS boolean LANGUAGE plpgsql
    -- Attaching waits for readers of tasks_default, and everyone else for it: rather try again later.
    SET lock_timeout = '2s'
AS $$
DECLARE
    month_begins timestamptz := date_trunc('month', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    month_ends timestamptz := (date_trunc('month', at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
    partition_name text := 'tasks_' || to_char(month_begins AT TIME ZONE 'UTC', 'YYYY_MM');
BEGIN
    IF to_regclass(partition_name) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(7234116, 2);
    -- Another session may have made it meanwhile.
    IF to_regclass(partition_name) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- Attached rather than made in place, since that would lock all of tasks.
    EXECUTE format('CREATE TABLE %I (LIKE tasks INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED)', partition_name);
    -- Rows that came before their month did are in tasks_default, and would make it refuse the new neighbour.
    LOCK TABLE tasks_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format(
        'WITH moved AS (DELETE FROM tasks_default WHERE created_at >= %1$L AND created_at < %2$L RETURNING *)
         INSERT INTO %3$I (id, user_id, version, title, description, status, priority, created_at, updated_at, due_date)
         SELECT id, user_id, version, title, description, status, priority, created_at, updated_at, due_date FROM moved',
        month_begins, month_ends, partition_name);
    EXECUTE format('ALTER TABLE tasks ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        partition_name, month_begins, month_ends);
    RETURN true;
END
$$;

-- Makes the partitions of this month and `ahead` more, and returns how many were missing. Whoever comes while another session does this
-- leaves it to that one. One statement, one transaction: it goes through a pooler.
CREATE FUNCTION make_task_partitions(ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    made integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7234116, 2) THEN
        RETURN 0;
    END IF;
    FOR offset_months IN 0..ahead LOOP
        IF make_task_partition((this_month + make_interval(months => offset_months)) AT TIME ZONE 'UTC') THEN
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$;
