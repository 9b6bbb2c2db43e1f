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

-- The running periods of those who have an alert in them, the furthest 50 of each period: of all users, sums of a month
-- would take minutes. As their caller, dashboards may read neither alerts nor quotas.
CREATE FUNCTION ledger.running_periods() RETURNS TABLE (
    period text, starts timestamptz, ends timestamptz, id text, bytes numeric, quota bigint, exact boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    instant timestamptz := statement_timestamp();
    furthest record;
BEGIN
    FOR furthest IN
        SELECT ranked.period AS period, array_agg(ranked.id) AS ids FROM (
            SELECT alert.period, alert.id, row_number() OVER (
                PARTITION BY alert.period
                ORDER BY max(alert.percent) DESC, max(alert.used / greatest(alert.quota, 1)) DESC, alert.id
            ) AS rank
            FROM public.alert
            WHERE NOT alert.resolved AND alert.figure <> 'taken back' AND alert.starts <= instant AND alert.ends > instant
            GROUP BY alert.period, alert.id
        ) AS ranked WHERE rank <= 50 GROUP BY ranked.period
    LOOP
        RETURN QUERY
        SELECT furthest.period, used.starts, used.ends, used.id, used.published + used.live, used.quota, used.exact
        FROM ledger.alert_usage(furthest.ids, furthest.period, instant, instant) AS used WHERE used.quota IS NOT NULL;
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
