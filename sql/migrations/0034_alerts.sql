-- Alerts: who has reached which percentage of a quota. `antenna alerts watch` writes them, and a notice of each change into
-- `outbox`, in one transaction with how far it has looked: so each change is noticed once, whatever dies in between.

-- At which percentages of a quota, of a user, of a plan's users, or of all (both null): the closest rule counts, as a whole.
-- Within `cool_down` of a notice that the same percentage was reached in an earlier period, the next one is recorded without
-- a notice.
CREATE TABLE alert_rule (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text,
    plan text REFERENCES plan,
    period text NOT NULL CHECK (period IN ('hour', 'day', 'month')),
    percents integer[] NOT NULL CHECK (
        array_ndims(percents) = 1 AND 0 < ALL (percents) AND 1000 >= ALL (percents)
        AND array_position(percents, NULL) IS NULL),
    cool_down interval NOT NULL DEFAULT interval '0' CHECK (cool_down >= interval '0'),
    UNIQUE NULLS NOT DISTINCT (user_id, plan, period),
    CHECK (user_id IS NULL OR plan IS NULL)
);
INSERT INTO alert_rule (period, percents)
SELECT period, '{50, 80, 90, 100, 120}' FROM unnest(ARRAY['hour', 'day', 'month']) AS period;

-- A percentage that was reached in a period; the rule is domain/alert_rule.py. `figure`: where `used` comes from, or that it
-- was not reached after all. `used` and `quota` are those of the newest of the `notices`. A quiet one fell into a cool-down.
CREATE TABLE alert (
    id text NOT NULL,
    period text NOT NULL,
    starts timestamptz NOT NULL,
    percent integer NOT NULL,
    ends timestamptz NOT NULL,
    figure text NOT NULL CHECK (figure IN ('live', 'published', 'taken back')),
    used numeric NOT NULL,
    quota bigint,
    notices integer NOT NULL,
    resolved boolean NOT NULL,
    quiet boolean NOT NULL,
    raised_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (id, period, starts, percent),
    CHECK (starts < ends)
);
-- Those of the hours that were published, those whose period may be over, and the newest for people.
CREATE INDEX alert_ends ON alert (ends);
CREATE INDEX alert_open ON alert (ends) WHERE NOT resolved;
-- Few have them: whether anybody has is asked at every look.
CREATE INDEX user_quota_change_longer ON user_quota_change (period) WHERE period <> 'hour';

-- How far the watch has looked: up to this batch, this certificate, this version of the users, and changes of quotas up to
-- this instant.
CREATE TABLE ledger.alert_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    batch bigint NOT NULL,
    certificate bigint NOT NULL,
    users_version bigint NOT NULL,
    looked_at timestamptz NOT NULL
);
-- What was there before is history.
INSERT INTO ledger.alert_head (batch, certificate, users_version, looked_at)
SELECT coalesce((SELECT max(batch) FROM ledger.batch), 0), (SELECT number FROM ledger.certificate_head),
    (SELECT version FROM ledger.users_version), clock_timestamp();

-- What is known of users' periods at an instant: of the period of each within which another instant lies. Only of those who
-- have reached some percentage of their rule or of whom there is an alert: nothing changes for the others.
-- `complete`: all of its hours are published and have no late rows; `was_published`: they were at an earlier look.
CREATE FUNCTION ledger.alert_usage(of_users text[], of_period text, within timestamptz, instant timestamptz)
RETURNS TABLE (id text, starts timestamptz, ends timestamptz, quota bigint, published numeric, live numeric, exact boolean,
    complete boolean, was_published boolean, percents integer[], cool_down interval) LANGUAGE plpgsql STABLE AS $$
DECLARE
    alike record;
    places record;
    until timestamptz;
    whole boolean;
    once boolean;
BEGIN
    FOR alike IN
        SELECT span.day, span.starts, span.ends, span.zone, array_agg(one.id) AS ids
        FROM unnest(of_users) AS one (id)
        CROSS JOIN LATERAL (
            SELECT *, CASE of_period WHEN 'hour' THEN '' ELSE ledger.user_zone(one.id, day) END AS zone
            FROM ledger.period_at(one.id, of_period, within)
        ) AS span
        -- A quota of such periods is rare, and their sums take longest.
        WHERE of_period = 'hour' OR (SELECT source FROM ledger.quota_at(one.id, of_period, instant)) IS NOT NULL
            OR EXISTS (SELECT FROM public.alert
                WHERE alert.id = one.id AND period = of_period AND alert.starts = span.starts)
        GROUP BY span.day, span.starts, span.ends, span.zone
    LOOP
        -- Events may be that far ahead of the clock.
        until := least(instant + interval '5 minutes', alike.ends);
        SELECT * INTO places FROM ledger.usage_places(alike.ids[1], of_period, alike.day, alike.starts, until, instant);
        whole := places.windows = '{}' AND until = alike.ends;
        once := NOT EXISTS (
            SELECT FROM generate_series(
                date_trunc('hour', alike.starts, 'UTC'), alike.ends - interval '1 microsecond', interval '1 hour'
            ) AS near (hour)
            WHERE NOT EXISTS (
                SELECT FROM ledger.certificate AS seen WHERE seen.hour = near.hour
                    AND seen.number <= (SELECT head.certificate FROM ledger.alert_head AS head)));
        RETURN QUERY
        SELECT used.id, alike.starts, alike.ends, in_force.quota, used.published, used.live, places.exact,
            whole, once, rule.percents, rule.cool_down
        FROM ledger.usage_in(alike.ids, places.days, places.hours, places.windows) AS used
        CROSS JOIN LATERAL
            ledger.quota_at(used.id, of_period, least(instant, alike.ends - interval '1 microsecond')) AS in_force
        LEFT JOIN public.user_metadata AS users ON users.id = used.id
        CROSS JOIN LATERAL (
            SELECT closest.percents, closest.cool_down FROM public.alert_rule AS closest
            WHERE closest.period = of_period AND (closest.user_id = used.id OR closest.user_id IS NULL)
                AND (closest.plan = users.plan OR closest.plan IS NULL)
            ORDER BY closest.user_id NULLS LAST, closest.plan NULLS LAST LIMIT 1
        ) AS rule
        WHERE (in_force.quota IS NOT NULL AND used.published + used.live > 0
                AND (used.published + used.live) * 100 >= in_force.quota::numeric
                    * (SELECT min(percent) FROM unnest(rule.percents) AS percent))
            OR EXISTS (SELECT FROM public.alert
                WHERE alert.id = used.id AND period = of_period AND alert.starts = alike.starts);
    END LOOP;
END $$;

-- For dashboards: nobody is named.
CREATE VIEW alerts_by_hour AS
SELECT date_trunc('hour', raised_at, 'UTC') AS hour, period, percent,
    CASE WHEN figure = 'taken back' THEN 'taken back' WHEN resolved THEN 'resolved' ELSE 'open' END AS state,
    figure = 'published' AS confirmed, count(*) AS alerts
FROM alert GROUP BY 1, 2, 3, 4, 5;

-- As the others it cannot log in; it may be there already, made for an owner who may make none.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'antenna_watch') THEN
        CREATE ROLE antenna_watch NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
-- It reads ids, sums and quotas, and nobody's e-mail; what it writes are alerts and notices.
GRANT USAGE ON SCHEMA public, ledger TO antenna_watch;
GRANT SELECT ON schema_migration, ledger.head, ledger.file, ledger.hour, ledger.hour_generation, ledger.publication_head,
    ledger.certificate, ledger.certificate_head, ledger.users_version, ledger.user_hours, ledger.live_table,
    ledger.live_window,
    ledger.billing_zone, ledger.period_state, ledger.fenced_session, ledger.alert_head, user_quota_change, user_plan_change,
    plan_quota_change, user_zone_change, bytes_agg_user, alert, alert_rule TO antenna_watch;
GRANT SELECT (id, plan, zone) ON user_metadata TO antenna_watch;
GRANT SELECT (date, id, sum_user_bytes) ON bytes_agg_user_1h TO antenna_watch;
GRANT SELECT (day, id, sum_user_bytes) ON bytes_agg_user_1d TO antenna_watch;
GRANT SELECT (date, id) ON users_over_quota_1h TO antenna_watch;
GRANT INSERT, UPDATE ON alert TO antenna_watch;
GRANT UPDATE ON ledger.alert_head TO antenna_watch;
GRANT INSERT ON outbox TO antenna_watch;

GRANT SELECT ON alert, alert_rule, alerts_by_hour, ledger.alert_head TO antenna_administrator;
GRANT SELECT ON alerts_by_hour, ledger.alert_head TO antenna_metrics;
GRANT SELECT ON alerts_by_hour TO antenna_dashboards;
GRANT INSERT, UPDATE, DELETE ON alert_rule TO antenna_administrator;
-- Of a user who is forgotten, and what is past its retention.
GRANT UPDATE (id), DELETE ON alert TO antenna_administrator;
