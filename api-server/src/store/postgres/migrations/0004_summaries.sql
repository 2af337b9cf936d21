-- Counts by user, for dashboards (plan section 6.1).
CREATE MATERIALIZED VIEW task_summaries AS
    SELECT user_id, status, priority, count(*) AS count FROM tasks GROUP BY user_id, status, priority;
-- A refresh beside readers needs it.
CREATE UNIQUE INDEX task_summaries_key ON task_summaries (user_id, status, priority);

-- When task_summaries was as it is.
CREATE TABLE summary_refresh (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    refreshed_at timestamptz NOT NULL
);
INSERT INTO summary_refresh (refreshed_at) VALUES (now());

-- Counts again, and says whether it did: whoever comes while another session does it leaves it to that one. Readers go on with the
-- counts of before until it is over.
CREATE FUNCTION refresh_task_summaries() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(7234116, 3) THEN
        RETURN false;
    END IF;
    -- Before the view takes its snapshot: it may show more than it claims, not less.
    UPDATE summary_refresh SET refreshed_at = clock_timestamp();
    REFRESH MATERIALIZED VIEW CONCURRENTLY task_summaries;
    RETURN true;
END
$$;
