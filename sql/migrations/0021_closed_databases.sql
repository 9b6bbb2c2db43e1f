-- A database may be closed to PUBLIC. Whoever works here needs the schema public, and the stream and those who replay need
-- temporary tables. What is not this owner's to grant is left as it is, with a warning.
GRANT USAGE ON SCHEMA public TO antenna_stream, antenna_publisher, antenna_dashboards, antenna_administrator;
DO $$
BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO antenna_stream, antenna_administrator', current_database());
END
$$;
