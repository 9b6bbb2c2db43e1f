-- bytes_agg_user_1h by day: a day that is no longer kept is dropped as a whole.

-- Hours before `days_from` are in one partition, the others in one of their day. Of hours before `kept_from` the users were
-- dropped. Null: there is no such hour.
CREATE TABLE ledger.user_hours (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    days_from timestamptz,
    kept_from timestamptz
);

DO $$
DECLARE
    old oid := 'bytes_agg_user_1h'::regclass;
    until timestamptz := date_trunc('day', greatest(now(), (SELECT max(date) FROM bytes_agg_user_1h)), 'UTC')
        + interval '2 days';
    reader record;
    definitions text[] := '{}';
    definition text;
BEGIN
    -- A view means the table that it was made on, whatever that is called later: those of others would go on reading the
    -- old rows alone. Their columns are the same, so views on them stay as they are.
    FOR reader IN
        SELECT DISTINCT view.oid::regclass AS name, view.relkind, pg_has_role(view.relowner, 'USAGE') AS ours,
            coalesce('WITH (' || array_to_string(view.reloptions, ', ') || ')', '') AS options
        FROM pg_depend JOIN pg_rewrite AS rule ON rule.oid = objid JOIN pg_class AS view ON view.oid = ev_class
        WHERE classid = 'pg_rewrite'::regclass AND refobjid = old
    LOOP
        IF reader.relkind <> 'v' OR NOT reader.ours THEN
            RAISE dependent_objects_still_exist USING MESSAGE = format(
                '%s reads bytes_agg_user_1h, which gets partitions: drop it, and create it again after `antenna up`',
                reader.name);
        END IF;
        definitions := definitions
            || format('CREATE OR REPLACE VIEW %s %s AS %s', reader.name, reader.options, pg_get_viewdef(reader.name));
    END LOOP;

    ALTER TABLE bytes_agg_user_1h RENAME CONSTRAINT bytes_agg_user_1h_pkey TO bytes_agg_user_1h_before_days_pkey;
    ALTER TABLE bytes_agg_user_1h RENAME TO bytes_agg_user_1h_before_days;
    CREATE TABLE bytes_agg_user_1h (LIKE bytes_agg_user_1h_before_days INCLUDING INDEXES) PARTITION BY RANGE (date);
    FOREACH definition IN ARRAY definitions LOOP
        EXECUTE definition;
    END LOOP;

    IF EXISTS (SELECT FROM bytes_agg_user_1h_before_days) THEN
        EXECUTE format('ALTER TABLE bytes_agg_user_1h ATTACH PARTITION bytes_agg_user_1h_before_days'
            ' FOR VALUES FROM (MINVALUE) TO (%L)', until);
        -- The partition's own bound may be later: an `antenna up` can have died between the migrations.
        ALTER TABLE bytes_agg_user_1h_before_days DROP CONSTRAINT before_days;
        INSERT INTO ledger.user_hours (days_from) VALUES (until);
    ELSE
        DROP TABLE bytes_agg_user_1h_before_days;
        INSERT INTO ledger.user_hours DEFAULT VALUES;
    END IF;
END $$;

GRANT SELECT, INSERT, DELETE ON bytes_agg_user_1h TO antenna_publisher;
GRANT SELECT, UPDATE (id, email, sum_user_bytes) ON bytes_agg_user_1h TO antenna_administrator;
GRANT SELECT ON ledger.user_hours TO antenna_publisher, antenna_administrator;

-- Tables are made and changed by their owner alone: publishers and administrators ask for it with these.
CREATE FUNCTION ledger.make_user_days(hours timestamptz[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    day timestamptz;
    partition text;
BEGIN
    FOR day IN
        SELECT DISTINCT date_trunc('day', hour, 'UTC') FROM unnest(hours) AS hour
        WHERE hour >= coalesce((SELECT days_from FROM ledger.user_hours), '-infinity') ORDER BY 1
    LOOP
        partition := format('public.%I', 'bytes_agg_user_1h_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD'));
        CONTINUE WHEN to_regclass(partition) IS NOT NULL;
        -- Who comes second waits for the first one and finds its partition.
        LOCK TABLE ledger.user_hours IN SHARE ROW EXCLUSIVE MODE;
        CONTINUE WHEN to_regclass(partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE %s (LIKE public.bytes_agg_user_1h INCLUDING ALL)', partition);
        -- Unlike CREATE TABLE ... PARTITION OF this lets others read and write the table.
        EXECUTE format('ALTER TABLE public.bytes_agg_user_1h ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
            partition, day, day + interval '1 day');
    END LOOP;
END $$;

-- The partitions whose days have ended by then.
CREATE FUNCTION ledger.user_days(until timestamptz) RETURNS TABLE (partition regclass)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'public.bytes_agg_user_1h'::regclass AND CASE relname
        WHEN 'bytes_agg_user_1h_before_days' THEN (SELECT days_from FROM ledger.user_hours)
        ELSE to_date(right(relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' + interval '1 day'
    END <= until
$$;

-- Whoever reads the table keeps this waiting, and this keeps everybody waiting who comes later: not for long, and the next
-- sweep tries again.
CREATE FUNCTION ledger.drop_user_days(until timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '3s' AS $$
DECLARE
    one regclass;
BEGIN
    LOCK TABLE ledger.user_hours IN SHARE ROW EXCLUSIVE MODE;
    FOR one IN SELECT partition FROM ledger.user_days(until) ORDER BY partition::text LOOP
        EXECUTE format('DROP TABLE %s', one);
    END LOOP;
    UPDATE ledger.user_hours SET days_from = CASE WHEN days_from > until THEN days_from END,
        kept_from = greatest(kept_from, date_trunc('day', until, 'UTC'));
END $$;

REVOKE ALL ON FUNCTION ledger.make_user_days, ledger.user_days, ledger.drop_user_days FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.make_user_days TO antenna_publisher;
GRANT EXECUTE ON FUNCTION ledger.user_days, ledger.drop_user_days TO antenna_administrator;
