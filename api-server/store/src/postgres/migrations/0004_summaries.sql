-- Counts by user, for dashboards (plan section 6.1).
CREATE MATERIALIZED VIEW task_summaries AS
    SELECT user_id, status, priority, count(*) AS count FROM tasks GROUP BY user_id, status, priority;
-- A refresh beside readers needs it.
CREATE UNIQUE INDEX task_summaries_key ON task_summaries (user_id, status, priority);

-- When task_summaries was as it is.
CREATE TABLE summary_refresh (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    refreshed_at timestamptz NOT NULL,
    -- count_task_changes() then; NULL before the first refresh.
    changes bigint
);
INSERT INTO summary_refresh (refreshed_at) VALUES (now());

-- A number that is another one whenever tasks have changed: the server's statistics, which sessions report within a second while they
-- are busy, and within ten after that. A new primary begins to count anew.
CREATE FUNCTION count_task_changes() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_all_tables
    WHERE relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'tasks'::regclass)
$$;

-- Counts again if tasks have changed since, and says whether it did: whoever comes while another session does it leaves it to that
-- one. Readers go on with the counts of before until it is over.
CREATE FUNCTION refresh_task_summaries() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    counted bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7234116, 3) THEN
        RETURN false;
    END IF;
    -- Both before the view takes its snapshot: it may show more than it claims, not less.
    counted := count_task_changes();
    UPDATE summary_refresh SET refreshed_at = clock_timestamp(), changes = counted WHERE changes IS DISTINCT FROM counted;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    REFRESH MATERIALIZED VIEW CONCURRENTLY task_summaries;
    RETURN true;
END
$$;
