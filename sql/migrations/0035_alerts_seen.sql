-- What people see of alerts: open ones by level, and running periods beside their quotas. Nobody's e-mail is in it.

-- As in ledger/alerts.py.
CREATE FUNCTION ledger.alert_level(percent integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN percent >= 100 THEN 'critical' WHEN percent >= 80 THEN 'warning' ELSE 'info' END
$$;

CREATE OR REPLACE VIEW alerts_by_hour AS
SELECT date_trunc('hour', raised_at, 'UTC') AS hour, period, percent,
    CASE WHEN figure = 'taken back' THEN 'taken back' WHEN resolved THEN 'resolved' ELSE 'open' END AS state,
    figure = 'published' AS confirmed, count(*) AS alerts, ledger.alert_level(percent) AS level
FROM alert GROUP BY 1, 2, 3, 4, 5;

-- Those of periods that are not over. By the partial index: it is asked at every scrape.
CREATE VIEW open_alerts AS
SELECT period, ledger.alert_level(percent) AS level, percent, figure = 'published' AS confirmed, count(*) AS alerts
FROM alert WHERE NOT resolved AND figure <> 'taken back' GROUP BY period, percent, figure = 'published';

-- The furthest open alerts of a period are found in its order.
CREATE INDEX alert_furthest ON alert (period, percent DESC, (used / greatest(quota, 1)) DESC)
    WHERE NOT resolved AND figure <> 'taken back';

-- The running periods of those who have an alert in them, of the 150 furthest alerts of each period: of all users, sums of a
-- month would take minutes. As their caller, dashboards may read neither alerts nor quotas.
CREATE FUNCTION ledger.running_periods() RETURNS TABLE (
    period text, starts timestamptz, ends timestamptz, id text, bytes numeric, quota bigint, exact boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    instant timestamptz := statement_timestamp();
    of_period text;
    furthest text[];
BEGIN
    FOREACH of_period IN ARRAY ARRAY['hour', 'day', 'month'] LOOP
        -- A user has an alert for each percentage that it has reached; the highest comes first.
        furthest := ARRAY(
            SELECT DISTINCT alert.id FROM (
                SELECT one.id FROM public.alert AS one
                WHERE one.period = of_period AND NOT one.resolved AND one.figure <> 'taken back'
                    AND one.starts <= instant AND one.ends > instant
                ORDER BY one.percent DESC, (one.used / greatest(one.quota, 1)) DESC LIMIT 150
            ) AS alert);
        RETURN QUERY
        SELECT of_period, used.starts, used.ends, used.id, used.published + used.live, used.quota, used.exact
        FROM ledger.alert_usage(furthest, of_period, instant, instant) AS used WHERE used.quota IS NOT NULL;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION ledger.running_periods FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.running_periods TO antenna_dashboards, antenna_administrator;

-- `percent` is null where the quota is 0.
CREATE VIEW running_against_quota AS
SELECT running.period, running.starts, running.ends, running.id, users.name, running.bytes, running.quota,
    greatest(running.quota - running.bytes, 0) AS remaining,
    (running.bytes * 100 / nullif(running.quota, 0))::float8 AS percent, running.exact
FROM ledger.running_periods() AS running LEFT JOIN user_metadata AS users USING (id);

GRANT SELECT ON open_alerts TO antenna_metrics;
GRANT SELECT ON open_alerts, running_against_quota TO antenna_dashboards, antenna_administrator;
-- `antenna status` shows the state of the line to the stream's role as well.
GRANT SELECT ON ledger.alert_head, open_alerts, deliveries TO antenna_stream;
GRANT SELECT (name, removed_at) ON alert_channel TO antenna_stream;
