-- No statement goes on for longer than whoever asked for it waits, whether they have hung up or asked again. It is a property of the database, since
-- a pooler's connections are of nobody in particular, and who logs in may be another role while passwords change; what may take longer says so
-- in its transaction. Who is not the owner sets it for themselves.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET statement_timeout = %L', current_database(), '10s');
EXCEPTION WHEN insufficient_privilege THEN
    EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET statement_timeout = %L', current_database(), '10s');
END
$$;
