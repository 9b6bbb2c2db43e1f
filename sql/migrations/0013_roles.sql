-- Who may do what: docs/roles.md has the table, and a test tries each cell of it. These roles cannot log in; a login is
-- made a member of one (`CREATE ROLE ... LOGIN IN ROLE antenna_stream`). Roles are the server's, not the database's, so
-- they may be there already.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['antenna_stream', 'antenna_publisher', 'antenna_dashboards', 'antenna_administrator'] LOOP
        -- CREATE ROLE asks for the right to make roles before it sees that one is there.
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = name);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            -- Another database's migration was faster.
            NULL;
        END;
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA ledger TO antenna_stream, antenna_publisher, antenna_administrator;
-- Names and not ALL TABLES: an extension or another owner may have tables beside ours, which are not ours to grant.
GRANT SELECT ON ledger.head, ledger.batch, ledger.batch_offset, ledger.file, ledger.rejection, ledger.hour,
    ledger.hour_generation, ledger.publication, ledger.publication_head, ledger.users_version, ledger.certificate,
    ledger.certificate_head, ledger.replay, ledger.replayed, ledger.expired_file, ledger.accepted_loss, ledger.failing_hour,
    ledger.quota_hour, ledger.published_bytes
    TO antenna_stream, antenna_publisher, antenna_administrator;
-- Every command looks first whether the schema is the one that it knows.
GRANT SELECT ON schema_migration TO antenna_stream, antenna_publisher, antenna_dashboards, antenna_administrator;

-- The stream writes down what it read, adds to the live tables, and opens and closes hours. It knows no user.
GRANT INSERT, UPDATE ON ledger.head, ledger.hour TO antenna_stream;
GRANT INSERT ON ledger.batch, ledger.batch_offset, ledger.file, ledger.rejection TO antenna_stream;
GRANT SELECT, INSERT, UPDATE ON bytes_agg_antenna, bytes_agg_user, bytes_agg_app TO antenna_stream;

-- Dagster's runs, sensor and daemon: they seal generations, replace hours of the hourly tables and certify them.
GRANT SELECT ON user_metadata, bytes_agg_antenna, bytes_agg_user, bytes_agg_app TO antenna_publisher;
GRANT SELECT, INSERT, DELETE ON bytes_agg_antenna_1h, bytes_agg_user_1h, bytes_agg_app_1h, users_over_quota_1h
    TO antenna_publisher;
GRANT INSERT ON ledger.hour_generation, ledger.publication, ledger.certificate TO antenna_publisher;
GRANT INSERT, UPDATE ON ledger.publication_head TO antenna_publisher;
GRANT UPDATE (generation) ON ledger.hour TO antenna_publisher;
GRANT UPDATE (number, sha256) ON ledger.certificate_head TO antenna_publisher;
GRANT INSERT, DELETE ON ledger.failing_hour TO antenna_publisher;
-- Sealing locks the stream's row, so that no batch commits meanwhile; a lock asks for the right to some column.
GRANT UPDATE (heartbeat_at) ON ledger.head TO antenna_publisher;
-- Dagster's own tables, which it makes and migrates itself.
GRANT USAGE, CREATE ON SCHEMA dagster TO antenna_publisher;

-- Nobody's e-mail is in these.
GRANT SELECT ON usage_by_antenna, usage_by_user, usage_by_app, top_talkers, usage_against_quota, over_quota_history,
    usage_compared, hour_trust, quarantine_by_hour, bytes, bytes_hourly TO antenna_dashboards;

-- People who look after users, retention, quarantine and losses. They neither publish nor certify; tables are made and
-- changed by the database's owner alone.
GRANT SELECT ON user_metadata, bytes_agg_antenna, bytes_agg_user, bytes_agg_app, bytes_agg_antenna_1h, bytes_agg_user_1h,
    bytes_agg_app_1h, users_over_quota_1h, bytes, bytes_hourly, user_quota_limit, usage_by_antenna, usage_by_user,
    usage_by_app, top_talkers, usage_against_quota, over_quota_history, usage_compared, hour_trust, quarantine_by_hour
    TO antenna_administrator;
GRANT INSERT, UPDATE, DELETE ON user_metadata, bytes_agg_antenna, bytes_agg_user, bytes_agg_app TO antenna_administrator;
GRANT INSERT, UPDATE ON ledger.hour, ledger.expired_file TO antenna_administrator;
GRANT UPDATE ON ledger.head, ledger.users_version TO antenna_administrator;
GRANT INSERT, DELETE ON ledger.file TO antenna_administrator;
GRANT INSERT ON ledger.batch, ledger.batch_offset, ledger.rejection, ledger.accepted_loss, ledger.replay, ledger.replayed
    TO antenna_administrator;
-- Old logs of runs go with a sweep.
GRANT USAGE ON SCHEMA dagster TO antenna_administrator;
-- Those of Dagster's tables that are there already, if they are this owner's: others make theirs as the publisher.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT oid::regclass AS name, relkind FROM pg_class
        WHERE relnamespace = 'dagster'::regnamespace AND relkind IN ('r', 'p', 'S') AND pg_has_role(relowner, 'USAGE')
    LOOP
        IF one.relkind = 'S' THEN
            EXECUTE format('GRANT ALL ON SEQUENCE %s TO antenna_publisher', one.name);
        ELSE
            EXECUTE format('GRANT ALL ON TABLE %s TO antenna_publisher', one.name);
            EXECUTE format('GRANT SELECT, DELETE ON TABLE %s TO antenna_administrator', one.name);
        END IF;
    END LOOP;
END
$$;
