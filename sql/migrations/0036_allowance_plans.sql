-- An allowance takes half the time: where the bytes are found is looked up hour by hour, by plans that are made once.

-- As before. Planned for one hour, PostgreSQL looks that hour up, and for an unknown number of hours it reads the state of all
-- that ever were: so it planned each question anew. A subquery with LIMIT is always an index lookup of each hour.
CREATE OR REPLACE FUNCTION ledger.usage_places(
    of_user text, period text, of_day date, starts timestamptz, until timestamptz, instant timestamptz,
    OUT days date[], OUT hours timestamptz[], OUT windows timestamptz[], OUT exact boolean)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    since timestamptz := starts;
    rest date;
    live_from timestamptz;
BEGIN
    days := '{}';
    IF period <> 'hour' THEN
        -- The days at its beginning that are published, and up to date.
        SELECT coalesce(array_agg(near.day ORDER BY near.day), '{}') INTO days
        FROM (
            SELECT state.day, row_number() OVER (ORDER BY state.day) AS place FROM ledger.period_state AS state
            WHERE state.period = 'day' AND state.day >= of_day AND state.day < ledger.next_period(usage_places.period, of_day)
                AND NOT state.dirty
        ) AS near
        WHERE near.day = of_day + near.place::integer - 1;
        rest := of_day + cardinality(days);
        since := greatest(starts, ledger.period_start('day', rest, ledger.user_zone(of_user, rest)));
    END IF;

    live_from := greatest(instant - interval '7 days', (
        SELECT CASE WHEN left_out THEN 'infinity' ELSE kept_from END FROM ledger.live_table WHERE name = 'bytes_agg_user'));

    SELECT coalesce(array_agg(hour ORDER BY hour) FILTER (WHERE published), '{}'),
        coalesce(bool_and(published OR hour >= live_from), true)
    INTO hours, exact
    FROM (
        SELECT near.hour, near.hour >= since AND near.hour >= coalesce(kept.kept_from, '-infinity')
            AND current.complete IS TRUE AS published
        FROM generate_series(
            date_trunc('hour', since, 'UTC'), until - interval '1 microsecond', interval '1 hour') AS near (hour)
        CROSS JOIN ledger.user_hours AS kept
        LEFT JOIN LATERAL (
            SELECT sealed.rows IS NOT DISTINCT FROM landed.rows AS complete
            FROM ledger.publication_head AS head
            LEFT JOIN ledger.hour AS landed ON landed.hour = head.hour
            LEFT JOIN ledger.hour_generation AS sealed ON sealed.hour = head.hour AND sealed.generation = head.generation
            WHERE head.asset = 'bytes_agg_user_1h' AND head.hour = near.hour LIMIT 1
        ) AS current ON true
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
