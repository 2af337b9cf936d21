-- The timeline of the last write, as part of what is written: so a snapshot, here or on a replica, tells which timelines' writes it may show.
CREATE TABLE write_timeline (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    timeline bigint NOT NULL
);
INSERT INTO write_timeline (timeline) VALUES (0);

-- The mark of the transaction at hand: its id, under the timeline. The first to write after a promotion notes that, and others wait for it: nothing
-- is seen under a timeline that the same snapshot does not show.
CREATE FUNCTION write_mark() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    now_on bigint := ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint;
    noted bigint;
BEGIN
    SELECT timeline FROM write_timeline INTO noted;
    IF noted < now_on THEN
        UPDATE write_timeline SET timeline = now_on WHERE timeline < now_on;
    END IF;
    RETURN greatest(noted, now_on) << 44 | pg_current_xact_id()::text::bigint;
END
$$;
