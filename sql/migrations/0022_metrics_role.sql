-- `antenna metrics` has a role of its own, which reads what a scrape tells of and changes nothing. As the others it cannot log
-- in; it may be there already, made for an owner who may make none.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'antenna_metrics') THEN
        CREATE ROLE antenna_metrics NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
-- The schema public as well: a database may be closed to PUBLIC.
GRANT USAGE ON SCHEMA ledger, public TO antenna_metrics;
GRANT SELECT ON schema_migration, ledger.head, ledger.batch, ledger.batch_offset, ledger.file, ledger.rejection, ledger.hour,
    ledger.hour_state, ledger.hour_to_publish, ledger.hour_generation, ledger.failing_hour, ledger.left_out_hour,
    ledger.partition_start, ledger.certificate TO antenna_metrics;

-- Sealing locks the hour's row and no row that the stream writes, so Dagster's runs change nothing of the stream's.
REVOKE UPDATE (heartbeat_at) ON ledger.head FROM antenna_publisher;
