-- Hours that the ledger does not have and that are before its newest one are empty, as they are for days and months: what
-- was used in the month in which it began is exact, and late rows of that month's published hours are history.

-- Planned for one hour, PostgreSQL looks that hour up, and for an unknown number of hours it would read the state of all that
-- ever were: so it planned each question anew, which took most of its time. A subquery with LIMIT is an index lookup whatever
-- the number of hours, so that plans are made once.
CREATE OR REPLACE FUNCTION ledger.usage_places(
    of_user text, period text, of_day date, starts timestamptz, until timestamptz, instant timestamptz,
    OUT days date[], OUT hours timestamptz[], OUT windows timestamptz[], OUT exact boolean)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    since timestamptz := starts;
    first date;
    rest date;
    live_from timestamptz;
BEGIN
    days := '{}';
    IF period <> 'hour' THEN
        -- The days at its beginning, or from that of the ledger's first hour on, that are published and up to date.
        first := of_day;
        IF NOT EXISTS (SELECT FROM ledger.period_state AS state WHERE state.period = 'day' AND state.day = of_day) THEN
            first := greatest(of_day, (SELECT ledger.period_of('day', min(hour), ledger.user_zone(of_user, of_day))
                FROM ledger.hour));
        END IF;
        SELECT coalesce(array_agg(near.day ORDER BY near.day), '{}') INTO days
        FROM (
            SELECT state.day, row_number() OVER (ORDER BY state.day) AS place FROM ledger.period_state AS state
            WHERE state.period = 'day' AND state.day >= first AND state.day < ledger.next_period(usage_places.period, of_day)
                AND NOT state.dirty
        ) AS near
        WHERE near.day = first + near.place::integer - 1;
        rest := first + cardinality(days);
        since := greatest(starts, ledger.period_start('day', rest, ledger.user_zone(of_user, rest)));
    END IF;

    live_from := greatest(instant - interval '7 days', (
        SELECT CASE WHEN left_out THEN 'infinity' ELSE kept_from END FROM ledger.live_table WHERE name = 'bytes_agg_user'));

    SELECT coalesce(array_agg(hour ORDER BY hour) FILTER (WHERE published), '{}'),
        coalesce(bool_and(published OR hour >= live_from), true)
    INTO hours, exact
    FROM (
        SELECT near.hour, (
            (near.hour >= since AND near.hour >= coalesce(kept.kept_from, '-infinity') AND sealed.rows = landed.rows)
            OR (landed.rows IS NULL AND near.hour < newest.hour)) IS TRUE AS published
        FROM generate_series(
            date_trunc('hour', since, 'UTC'), until - interval '1 microsecond', interval '1 hour') AS near (hour)
        CROSS JOIN ledger.user_hours AS kept
        CROSS JOIN (SELECT coalesce(max(hour), '-infinity') AS hour FROM ledger.hour) AS newest
        LEFT JOIN LATERAL (SELECT one.rows FROM ledger.hour AS one WHERE one.hour = near.hour LIMIT 1) AS landed ON true
        LEFT JOIN LATERAL (
            SELECT one.rows FROM ledger.publication_head AS head JOIN ledger.hour_generation AS one USING (hour, generation)
            WHERE head.asset = 'bytes_agg_user_1h' AND head.hour = near.hour LIMIT 1
        ) AS sealed ON true
        WHERE since < until
    ) AS near;

    SELECT coalesce(array_agg(DISTINCT near.begins) FILTER (WHERE near.begins >= since), '{}'),
        exact AND NOT coalesce(bool_or(near.begins < since AND near.begins + used.length > since), false)
    INTO windows, exact
    FROM ledger.live_window AS used
    CROSS JOIN LATERAL generate_series(
        date_trunc('hour', since, 'UTC'), until - interval '1 microsecond', used.length) AS near (begins)
    WHERE used.name = 'bytes_agg_user' AND since < until AND date_trunc('hour', near.begins, 'UTC') <> ALL (hours);
END $$;

ALTER FUNCTION ledger.allowance_at SET plan_cache_mode = force_generic_plan;

CREATE OR REPLACE FUNCTION ledger.alert_usage(of_users text[], of_period text, within timestamptz, instant timestamptz)
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
                    AND seen.number <= (SELECT head.certificate FROM ledger.alert_head AS head))
                AND (EXISTS (SELECT FROM ledger.hour AS known WHERE known.hour = near.hour)
                    OR near.hour >= coalesce((SELECT max(known.hour) FROM ledger.hour AS known), '-infinity')));
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

-- Quotas of hours that were corrected for the past, while a run that has read the users before may still publish: the sensor
-- asks again for the hours from `since` on that it publishes.
CREATE TABLE ledger.quota_correction (
    users_version bigint PRIMARY KEY,
    since timestamptz NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT INSERT ON ledger.quota_correction TO antenna_administrator;
GRANT SELECT, DELETE ON ledger.quota_correction TO antenna_publisher;

-- `antenna status` with the stream's login, and the metrics.
GRANT SELECT ON ledger.period_state, ledger.failing_period TO antenna_stream, antenna_metrics;
