-- What was changed and not yet told to the message broker, in the order in which it was committed for each user. Rows come and go all the
-- time: autovacuum goes by their number, not by a share of the table.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id bigint NOT NULL,
    user_id bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('task.created', 'task.updated', 'task.deleted')),
    -- The task as clients see it; NULL where it was deleted.
    payload jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    traceparent text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0.2);

-- What became of an operation: `operation` is its place in the request, from 1.
CREATE TYPE task_outcome AS (
    operation integer,
    outcome text,
    id bigint,
    user_id bigint,
    version bigint,
    title text,
    description text,
    status text,
    priority text,
    created_at timestamptz,
    updated_at timestamptz,
    due_date timestamptz,
    mark bigint
);

-- The answers to requests that may come again. They are swept after a day.
CREATE TABLE idempotency_keys (
    user_id bigint NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    outcomes jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX idx_idempotency_keys_created_at ON idempotency_keys (created_at);

-- Makes the user's writes wait for each other, before the transaction has its id: so of two writes of a user, the one with the
-- greater id is the later one, which is what a mark (api-server/src/store/mod.rs) promises. Users are locked in one order: no deadlocks.
CREATE FUNCTION lock_users(user_ids bigint[]) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(7234117, user_key)
    FROM (SELECT DISTINCT (user_id & 2147483647)::integer AS user_key FROM unnest(user_ids) AS user_id ORDER BY user_key) AS users
$$;

-- Does the operations in their order, each on its own, and returns what became of each. Arrays run side by side, one element an operation:
--   kinds        create, update, read (an update of nothing) or delete
--   expected     the version that the task must have; NULL takes any
--   titles …     what to set; NULL leaves an updated task's as it is, unless sets_… says that it is to be set, to NULL if need be
-- One call is one transaction, in one message: it goes through a pooler. Statements in here see what was committed while the users' locks were
-- waited for, since each takes a snapshot of its own.
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
    traceparents text[]
) RETURNS SETOF task_outcome LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    asked record;
    done task_outcome;
    made_at timestamptz;
BEGIN
    PERFORM lock_users(user_ids);
    FOR asked IN
        SELECT * FROM unnest(user_ids, kinds, ids, expected, titles, sets_descriptions, descriptions, statuses, priorities,
            sets_due_dates, due_dates, traceparents) WITH ORDINALITY
        AS o (user_id, kind, id, expected, title, sets_description, description, status, priority, sets_due_date, due_date,
            traceparent, number)
    LOOP
        done := NULL;
        CASE asked.kind
        WHEN 'create' THEN
            -- The clock, not now(): the tasks of one request are made one after the other.
            made_at := clock_timestamp();
            INSERT INTO tasks (id, user_id, title, description, status, priority, created_at, updated_at, due_date)
            VALUES (task_id(made_at), asked.user_id, asked.title, asked.description, asked.status, asked.priority,
                made_at, made_at, asked.due_date)
            RETURNING asked.number, 'created', id, user_id, version, title, description, status, priority, created_at, updated_at,
                due_date, pg_current_xact_id()::text::bigint
            INTO done;
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

-- apply_operations for one user's request, once: what it did is kept under the key, and told again to whoever comes with the same
-- key and fingerprint. With another fingerprint nothing is done, and the only outcome is key_reused.
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
            statuses, priorities, sets_due_dates, due_dates, traceparents) AS o);
        INSERT INTO idempotency_keys (user_id, key, fingerprint, outcomes)
        VALUES (this_user_id, this_key, this_fingerprint, to_jsonb(outcomes));
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
