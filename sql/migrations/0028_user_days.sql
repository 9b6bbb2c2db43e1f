-- bytes_agg_user_1h by day: a day that is no longer kept is dropped as a whole.

ALTER TABLE bytes_agg_user_1h RENAME CONSTRAINT bytes_agg_user_1h_pkey TO bytes_agg_user_1h_before_days_pkey;
ALTER TABLE bytes_agg_user_1h RENAME TO bytes_agg_user_1h_before_days;

CREATE TABLE bytes_agg_user_1h (
    date timestamptz NOT NULL,
    id text NOT NULL,
    email text,
    sum_user_bytes bigint NOT NULL,
    PRIMARY KEY (date, id)
) PARTITION BY RANGE (date);

-- Hours before `days_from` are in one partition, the others in one of their day. Of hours before `kept_from` the users were
-- dropped. Null: there is no such hour.
CREATE TABLE ledger.user_hours (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    days_from timestamptz,
    kept_from timestamptz
);

CREATE OR REPLACE VIEW bytes_hourly AS
SELECT date AS timestamp, antenna_id AS id, sum_antenna_bytes AS value, 'antenna_total_bytes' AS type FROM bytes_agg_antenna_1h
UNION ALL
SELECT date, id, sum_user_bytes, 'user_total_bytes' FROM bytes_agg_user_1h
UNION ALL
SELECT date, app, sum_app_bytes, 'app_total_bytes' FROM bytes_agg_app_1h;

CREATE OR REPLACE VIEW usage_by_user AS
SELECT used.hour, used.id, users.name, used.bytes, used.source
FROM (
    SELECT date AS hour, id, sum_user_bytes AS bytes, 'hourly' AS source FROM bytes_agg_user_1h
    UNION ALL
    SELECT hour.hour, live.id, sum(live.sum_user_bytes)::bigint, 'live'
    FROM ledger.hour JOIN bytes_agg_user AS live ON live.date >= hour.hour AND live.date < hour.hour + interval '1 hour'
    WHERE hour.hour >= (SELECT date_trunc('hour', min(date), 'UTC') FROM bytes_agg_user)
        AND NOT EXISTS (
            SELECT FROM ledger.publication_head AS head WHERE head.asset = 'bytes_agg_user_1h' AND head.hour = hour.hour)
    GROUP BY hour.hour, live.id
) AS used LEFT JOIN user_metadata AS users USING (id);

CREATE OR REPLACE VIEW usage_against_quota AS
SELECT side.hour, used.id, users.name, used.sum_user_bytes AS bytes, coalesce(over.quota, users.quota) AS quota,
    100::numeric * used.sum_user_bytes / nullif(coalesce(over.quota, users.quota), 0)::float8 AS percent,
    coalesce(over.quota, users.quota) - used.sum_user_bytes AS remaining,
    over.id IS NOT NULL AS over_quota
FROM ledger.quota_hour AS side
JOIN bytes_agg_user_1h AS used ON used.date = side.hour
JOIN user_metadata AS users ON users.id = used.id
LEFT JOIN users_over_quota_1h AS over ON over.date = side.hour AND over.id = used.id;

DO $$
DECLARE
    until timestamptz := date_trunc('day', greatest(now(), (SELECT max(date) FROM bytes_agg_user_1h_before_days)), 'UTC')
        + interval '2 days';
BEGIN
    IF EXISTS (SELECT FROM bytes_agg_user_1h_before_days) THEN
        EXECUTE format('ALTER TABLE bytes_agg_user_1h ATTACH PARTITION bytes_agg_user_1h_before_days'
            ' FOR VALUES FROM (MINVALUE) TO (%L)', until);
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
