-- Who has reached a percentage in a period that ended just now, or of which a part is missing, is found as well once rules are
-- others.

-- The headroom of all users at once, in their running periods, or in those that have ended since an instant: until the first
-- percentage, and 0 of those who have reached it, whom nobody may have been told of. Where something of the sums is missing,
-- only the latter. Without those who have moved to another zone lately, or have an alert in the running period. Everything is
-- read once: of a million users, which the planner takes for few, nested loops would take hours.
DROP FUNCTION ledger.headroom_of_all(text, timestamptz);
CREATE FUNCTION ledger.headroom_of_all(of_period text, instant timestamptz, ended_since timestamptz DEFAULT NULL)
RETURNS TABLE (id text, starts timestamptz, ends timestamptz, headroom bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan SET enable_nestloop = off SET work_mem = '64MB' AS $$
DECLARE
    most CONSTANT bigint := 4611686018427387904;
    today CONSTANT date := (instant AT TIME ZONE 'UTC')::date;
    alike record;
    places record;
BEGIN
    FOR alike IN
        -- No user has the empty id: it stands for those who never had a zone of their own.
        SELECT same.zone, span.day, span.starts, span.ends, same.id AS one
        FROM (
            SELECT NULL AS zone, '' AS id
            UNION ALL
            SELECT moved.zone, min(moved.id) FROM ledger.newest_zones() AS moved
            WHERE of_period <> 'hour' AND moved.from_day <= today - 40 GROUP BY moved.zone
        ) AS same
        CROSS JOIN LATERAL ledger.period_at(same.id, of_period, coalesce(ended_since, instant)) AS span
        WHERE ended_since IS NULL OR span.ends <= instant
    LOOP
        SELECT * INTO places FROM ledger.usage_places(
            alike.one, of_period, alike.day, alike.starts, least(instant + interval '5 minutes', alike.ends), instant);
        RETURN QUERY
        WITH rule AS (
            SELECT of_some.user_id, of_some.plan, (SELECT min(percent) FROM unnest(of_some.percents) AS percent) AS percent
            FROM public.alert_rule AS of_some WHERE of_some.period = of_period
        )
        SELECT users.id, alike.starts, alike.ends, until_first.bytes
        FROM public.user_metadata AS users
        LEFT JOIN (
            SELECT place.id, sum(place.bytes) AS bytes FROM (
                SELECT of_day.id, of_day.sum_user_bytes AS bytes FROM public.bytes_agg_user_1d AS of_day
                WHERE of_day.day = ANY (places.days)
                    AND of_day.day >= places.days[1] AND of_day.day <= places.days[cardinality(places.days)]
                UNION ALL
                SELECT of_hour.id, of_hour.sum_user_bytes FROM public.bytes_agg_user_1h AS of_hour
                WHERE of_hour.date = ANY (places.hours)
                    AND of_hour.date >= places.hours[1] AND of_hour.date <= places.hours[cardinality(places.hours)]
                UNION ALL
                SELECT live.id, live.sum_user_bytes FROM public.bytes_agg_user AS live WHERE live.date = ANY (places.windows)
            ) AS place GROUP BY place.id
        ) AS used USING (id)
        LEFT JOIN ledger.quotas_at(of_period, least(instant, alike.ends - interval '1 microsecond')) AS in_force USING (id)
        LEFT JOIN rule AS own ON own.user_id = users.id
        LEFT JOIN rule AS of_plan ON of_plan.plan = users.plan
        LEFT JOIN rule AS of_all ON of_all.user_id IS NULL AND of_all.plan IS NULL
        CROSS JOIN LATERAL (
            SELECT CASE WHEN own.user_id IS NOT NULL THEN own.percent WHEN of_plan.plan IS NOT NULL THEN of_plan.percent
                ELSE of_all.percent END AS percent
        ) AS first
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN in_force.quota IS NULL THEN most
                WHEN in_force.quota = 0 AND coalesce(used.bytes, 0) = 0 THEN 1
                WHEN first.percent IS NULL THEN most
                ELSE least(greatest(
                    ceil(in_force.quota::numeric * first.percent / 100) - coalesce(used.bytes, 0), 0), most)::bigint
            END AS bytes
        ) AS until_first
        LEFT JOIN ledger.newest_zones() AS moved ON moved.id = users.id AND of_period <> 'hour'
        WHERE moved.zone IS NOT DISTINCT FROM alike.zone AND (moved.from_day IS NULL OR moved.from_day <= today - 40)
            AND (places.exact OR until_first.bytes = 0)
            AND (ended_since IS NOT NULL OR NOT EXISTS (SELECT FROM public.alert
                WHERE alert.id = users.id AND alert.period = of_period AND alert.starts = alike.starts));
    END LOOP;
END $$;
