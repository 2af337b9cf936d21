-- As in migration 3, but all tasks that are to be made are made by one statement: to begin a statement takes the server longer than to insert
-- a row. They come before the other operations, which can't be about them, since nobody knows their ids yet. Whoever calls it
-- puts the outcomes in the operations' order.
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
) RETURNS SETOF task_outcome LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    asked record;
    done task_outcome;
BEGIN
    PERFORM lock_users(user_ids);
    IF 'create' = ANY (kinds) THEN
        RETURN QUERY
        WITH new AS MATERIALIZED (
            -- The clock, not now(): the tasks of one request are made one after the other.
            SELECT o.*, clock_timestamp() AS made_at
            FROM unnest(user_ids, kinds, titles, descriptions, statuses, priorities, due_dates, traceparents) WITH ORDINALITY
            AS o (user_id, kind, title, description, status, priority, due_date, traceparent, number)
            WHERE o.kind = 'create'
        ), numbered AS MATERIALIZED (
            SELECT new.*, task_id(new.made_at) AS id FROM new
        ), made AS (
            INSERT INTO tasks (id, user_id, title, description, status, priority, created_at, updated_at, due_date)
            SELECT n.id, n.user_id, n.title, n.description, n.status, n.priority, n.made_at, n.made_at, n.due_date FROM numbered AS n
            RETURNING id, version
        ), outcomes AS MATERIALIZED (
            SELECT n.number::integer AS operation, 'created'::text AS outcome, n.id, n.user_id, m.version, n.title, n.description,
                n.status, n.priority, n.made_at AS created_at, n.made_at AS updated_at, n.due_date,
                pg_current_xact_id()::text::bigint AS mark
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
            sets_due_dates, due_dates, traceparents) WITH ORDINALITY
        AS o (user_id, kind, id, expected, title, sets_description, description, status, priority, sets_due_date, due_date,
            traceparent, number)
        WHERE o.kind <> 'create'
    LOOP
        done := NULL;
        CASE asked.kind
        WHEN 'update' THEN
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
                t.updated_at, t.due_date, pg_current_xact_id()::text::bigint
            INTO done;
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
            RETURNING asked.number, 'deleted', t.id, t.user_id, t.version, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                pg_current_xact_id()::text::bigint
            INTO done;
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
END
$$;
