-- How much each user has: tasks, and bytes of titles and descriptions. It changes with the tasks, while the user's writes wait for each other, so
-- a quota is exact and costs one row. Who isn't here is counted before they write the next time.
CREATE TABLE task_usage (
    user_id bigint PRIMARY KEY,
    tasks bigint NOT NULL,
    bytes bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE FUNCTION text_bytes(title text, description text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT (coalesce(octet_length(title), 0) + coalesce(octet_length(description), 0))::bigint
$$;

-- Counts who isn't in task_usage. The users are locked.
CREATE FUNCTION count_usage(user_ids bigint[]) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO task_usage (user_id, tasks, bytes)
    SELECT u.user_id, count(t.id), coalesce(sum(text_bytes(t.title, t.description)), 0)
    FROM (SELECT DISTINCT user_id FROM unnest(user_ids) AS user_id) AS u LEFT JOIN tasks AS t USING (user_id)
    WHERE NOT EXISTS (SELECT FROM task_usage AS k WHERE k.user_id = u.user_id)
    GROUP BY u.user_id
    ON CONFLICT DO NOTHING
$$;

-- The same for one user, before they write with others.
CREATE FUNCTION ensure_usage(this_user_id bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM task_usage WHERE user_id = this_user_id) THEN
        PERFORM lock_users(ARRAY[this_user_id]);
        PERFORM count_usage(ARRAY[this_user_id]);
    END IF;
END
$$;

-- As in migration 8, and within a quota: of requests whose new tasks or texts are more than their user may have, nothing is done. `requests` says
-- which operations came together. A text that replaces another counts in full when the quota is looked at.
CREATE FUNCTION apply_operations(
    events boolean,
    user_ids bigint[],
    kinds text[],
    ids bigint[],
    expected bigint[],
    titles text[],
    sets_descriptions boolean[],
    descriptions text[],
    statuses text[],
    priorities text[],
    sets_due_dates boolean[],
    due_dates timestamptz[],
    traceparents text[],
    requests integer[],
    most_tasks bigint,
    most_bytes bigint
) RETURNS SETOF task_outcome LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    asked record;
    done task_outcome;
    over integer[];
    uncounted boolean;
    had bigint;
    more_tasks bigint[] := array_fill(0, ARRAY[cardinality(user_ids)]);
    more_bytes bigint[] := more_tasks;
    changes_usage boolean := 'create' = ANY (kinds);
BEGIN
    PERFORM lock_users(user_ids);
    LOOP
        SELECT
            coalesce(array_agg(a.request) FILTER (
                WHERE a.makes AND u.tasks + a.tasks > most_tasks OR a.writes AND u.bytes + a.bytes > most_bytes
            ), '{}'),
            bool_or(u.user_id IS NULL)
        INTO over, uncounted
        FROM (
            SELECT o.user_id, o.request, bool_or(o.kind = 'create') AS makes, sum(text_bytes(o.title, o.description)) > 0 AS writes,
                sum(count(*) FILTER (WHERE o.kind = 'create')) OVER earlier AS tasks,
                sum(sum(text_bytes(o.title, o.description))) OVER earlier AS bytes
            FROM unnest(user_ids, requests, kinds, titles, descriptions) AS o (user_id, request, kind, title, description)
            GROUP BY o.user_id, o.request
            WINDOW earlier AS (PARTITION BY o.user_id ORDER BY o.request)
        ) AS a LEFT JOIN task_usage AS u USING (user_id);
        -- As a rule whoever calls this has had everybody counted. Without a quota nobody needs to be.
        EXIT WHEN uncounted IS NOT TRUE OR most_tasks IS NULL AND most_bytes IS NULL;
        PERFORM count_usage(user_ids);
    END LOOP;
    IF over <> '{}' THEN
        RETURN QUERY
        SELECT o.number::integer, 'over_quota', o.id, o.user_id, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text,
            NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::bigint
        FROM unnest(user_ids, ids, requests) WITH ORDINALITY AS o (user_id, id, request, number) WHERE o.request = ANY (over);
    END IF;
    IF 'create' = ANY (kinds) THEN
        RETURN QUERY
        WITH new AS MATERIALIZED (
            -- The clock, not now(): the tasks of one request are made one after the other.
            SELECT o.*, clock_timestamp() AS made_at
            FROM unnest(user_ids, kinds, titles, descriptions, statuses, priorities, due_dates, requests) WITH ORDINALITY
            AS o (user_id, kind, title, description, status, priority, due_date, request, number)
            WHERE o.kind = 'create' AND o.request <> ALL (over)
        ), numbered AS MATERIALIZED (
            SELECT new.*, task_id(new.made_at) AS id FROM new
        ), made AS (
            INSERT INTO tasks (id, user_id, title, description, status, priority, created_at, updated_at, due_date)
            SELECT n.id, n.user_id, n.title, n.description, n.status, n.priority, n.made_at, n.made_at, n.due_date FROM numbered AS n
            RETURNING id, version
        ), outcomes AS MATERIALIZED (
            SELECT n.number::integer AS operation, 'created'::text AS outcome, n.id, n.user_id, m.version, n.title, n.description,
                n.status, n.priority, n.made_at AS created_at, n.made_at AS updated_at, n.due_date,
                (SELECT write_mark()) AS mark
            FROM numbered AS n JOIN made AS m USING (id)
        ), told AS (
            INSERT INTO outbox (task_id, user_id, kind, payload, traceparent)
            SELECT o.id, o.user_id, 'task.created', to_jsonb(o) - '{operation,outcome,version,mark}'::text[], traceparents[o.operation]
            FROM outcomes AS o WHERE events ORDER BY o.operation
        )
        SELECT o.* FROM outcomes AS o;
    END IF;
    FOR asked IN
        SELECT * FROM unnest(user_ids, kinds, ids, expected, titles, sets_descriptions, descriptions, statuses, priorities,
            sets_due_dates, due_dates, traceparents, requests) WITH ORDINALITY
        AS o (user_id, kind, id, expected, title, sets_description, description, status, priority, sets_due_date, due_date,
            traceparent, request, number)
        WHERE o.kind <> 'create' AND o.request <> ALL (over)
    LOOP
        done := NULL;
        had := NULL;
        CASE asked.kind
        WHEN 'update' THEN
            IF asked.title IS NOT NULL OR asked.sets_description THEN
                SELECT text_bytes(t.title, t.description) FROM tasks AS t
                WHERE t.id = asked.id AND t.created_at >= task_second(asked.id)
                    AND t.created_at < task_second(asked.id) + interval '1 second' AND t.user_id = asked.user_id
                INTO had;
            END IF;
            UPDATE tasks AS t SET
                version = t.version + 1,
                title = coalesce(asked.title, t.title),
                description = CASE WHEN asked.sets_description THEN asked.description ELSE t.description END,
                status = coalesce(asked.status, t.status),
                priority = coalesce(asked.priority, t.priority),
                due_date = CASE WHEN asked.sets_due_date THEN asked.due_date ELSE t.due_date END,
                updated_at = clock_timestamp()
            WHERE t.id = asked.id AND t.created_at >= task_second(asked.id)
                AND t.created_at < task_second(asked.id) + interval '1 second'
                AND t.user_id = asked.user_id AND t.version = coalesce(asked.expected, t.version)
            RETURNING asked.number, 'updated', t.id, t.user_id, t.version, t.title, t.description, t.status, t.priority, t.created_at,
                t.updated_at, t.due_date, write_mark()
            INTO done;
            IF had IS NOT NULL AND done.outcome IS NOT NULL THEN
                more_bytes[asked.number] := text_bytes(done.title, done.description) - had;
                changes_usage := true;
            END IF;
        WHEN 'read' THEN
            SELECT asked.number, 'updated', t.id, t.user_id, t.version, t.title, t.description, t.status, t.priority, t.created_at,
                t.updated_at, t.due_date, NULL
            FROM tasks AS t
            WHERE t.id = asked.id AND t.created_at >= task_second(asked.id)
                AND t.created_at < task_second(asked.id) + interval '1 second'
                AND t.user_id = asked.user_id AND t.version = coalesce(asked.expected, t.version)
            INTO done;
        WHEN 'delete' THEN
            DELETE FROM tasks AS t
            WHERE t.id = asked.id AND t.created_at >= task_second(asked.id)
                AND t.created_at < task_second(asked.id) + interval '1 second'
                AND t.user_id = asked.user_id AND t.version = coalesce(asked.expected, t.version)
            RETURNING asked.number, 'deleted', t.id, t.user_id, t.version, write_mark(),
                text_bytes(t.title, t.description)
            INTO done.operation, done.outcome, done.id, done.user_id, done.version, done.mark, had;
            IF had IS NOT NULL THEN
                more_tasks[asked.number] := -1;
                more_bytes[asked.number] := -had;
                changes_usage := true;
            END IF;
        END CASE;
        IF done.outcome IS NULL THEN
            done.operation := asked.number;
            done.id := asked.id;
            done.outcome := 'not_found';
            IF asked.expected IS NOT NULL AND EXISTS (
                SELECT FROM tasks AS t
                WHERE t.id = asked.id AND t.created_at >= task_second(asked.id)
                    AND t.created_at < task_second(asked.id) + interval '1 second' AND t.user_id = asked.user_id
            ) THEN
                done.outcome := 'conflict';
            END IF;
        ELSIF events AND done.mark IS NOT NULL THEN
            INSERT INTO outbox (task_id, user_id, kind, payload, traceparent)
            VALUES (done.id, done.user_id, 'task.' || done.outcome,
                CASE WHEN done.outcome <> 'deleted' THEN to_jsonb(done) - '{operation,outcome,version,mark}'::text[] END,
                asked.traceparent);
        END IF;
        RETURN NEXT done;
    END LOOP;
    IF changes_usage THEN
        UPDATE task_usage AS u SET tasks = u.tasks + m.tasks, bytes = u.bytes + m.bytes
        FROM (
            SELECT o.user_id,
                sum(CASE WHEN o.kind = 'create' THEN 1 ELSE o.tasks END) AS tasks,
                sum(CASE WHEN o.kind = 'create' THEN text_bytes(o.title, o.description) ELSE o.bytes END) AS bytes
            FROM unnest(user_ids, requests, kinds, titles, descriptions, more_tasks, more_bytes)
                AS o (user_id, request, kind, title, description, tasks, bytes)
            WHERE o.request <> ALL (over)
            GROUP BY o.user_id
        ) AS m
        WHERE u.user_id = m.user_id AND (m.tasks <> 0 OR m.bytes <> 0);
    END IF;
END
$$;

CREATE FUNCTION apply_once(
    this_user_id bigint,
    this_key text,
    this_fingerprint bytea,
    events boolean,
    user_ids bigint[],
    kinds text[],
    ids bigint[],
    expected bigint[],
    titles text[],
    sets_descriptions boolean[],
    descriptions text[],
    statuses text[],
    priorities text[],
    sets_due_dates boolean[],
    due_dates timestamptz[],
    traceparents text[],
    requests integer[],
    most_tasks bigint,
    most_bytes bigint,
    OUT replayed boolean,
    OUT done task_outcome
) RETURNS SETOF record LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    before idempotency_keys;
    outcomes task_outcome[];
BEGIN
    -- Whoever comes with the same key meanwhile waits here, and then finds it.
    PERFORM lock_users(ARRAY[this_user_id]);
    SELECT * FROM idempotency_keys AS k WHERE k.user_id = this_user_id AND k.key = this_key INTO before;
    replayed := before.key IS NOT NULL;
    IF NOT replayed THEN
        outcomes := ARRAY(SELECT o FROM apply_operations(events, user_ids, kinds, ids, expected, titles, sets_descriptions, descriptions,
            statuses, priorities, sets_due_dates, due_dates, traceparents, requests, most_tasks, most_bytes) AS o);
        -- What was refused may be tried again.
        IF NOT EXISTS (SELECT FROM unnest(outcomes) AS o WHERE o.outcome = 'over_quota') THEN
            INSERT INTO idempotency_keys (user_id, key, fingerprint, outcomes)
            VALUES (this_user_id, this_key, this_fingerprint, to_jsonb(outcomes));
        END IF;
    ELSIF before.fingerprint = this_fingerprint THEN
        outcomes := ARRAY(SELECT o FROM jsonb_populate_recordset(NULL::task_outcome, before.outcomes) AS o);
    ELSE
        done.outcome := 'key_reused';
        outcomes := ARRAY[done];
    END IF;
    FOREACH done IN ARRAY outcomes LOOP
        RETURN NEXT;
    END LOOP;
END
$$;

-- Instances of the release before call these as long as they run. They keep their own quota, and what they change is counted.
CREATE OR REPLACE FUNCTION apply_operations(
    events boolean,
    user_ids bigint[],
    kinds text[],
    ids bigint[],
    expected bigint[],
    titles text[],
    sets_descriptions boolean[],
    descriptions text[],
    statuses text[],
    priorities text[],
    sets_due_dates boolean[],
    due_dates timestamptz[],
    traceparents text[]
) RETURNS SETOF task_outcome LANGUAGE sql VOLATILE AS $$
    SELECT * FROM apply_operations(events, user_ids, kinds, ids, expected, titles, sets_descriptions, descriptions, statuses, priorities,
        sets_due_dates, due_dates, traceparents, array_fill(0, ARRAY[cardinality(user_ids)]), NULL, NULL)
$$;

-- What is no longer in tasks is nobody's any more. All are counted anew, each when they write the next time.
CREATE OR REPLACE FUNCTION detach_task_partitions(keep interval) RETURNS integer LANGUAGE plpgsql
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
        IF detached = 0 THEN
            -- In the order of those who write.
            LOCK TABLE task_usage IN ACCESS EXCLUSIVE MODE;
        END IF;
        EXECUTE format('ALTER TABLE tasks DETACH PARTITION %s', month);
        detached := detached + 1;
    END LOOP;
    IF detached > 0 THEN
        TRUNCATE task_usage;
    END IF;
    RETURN detached;
END
$$;
