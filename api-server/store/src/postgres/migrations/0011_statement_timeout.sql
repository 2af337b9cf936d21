-- No statement goes on for longer than whoever asked for it waits, whether they have hung up or asked again. It is a property of the role, since a
-- pooler's connections are of nobody in particular; what may take longer says so in its transaction.
DO $$
BEGIN
    EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET statement_timeout = %L', current_database(), '10s');
END
$$;
