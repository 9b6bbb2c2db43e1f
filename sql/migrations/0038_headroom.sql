-- How many more bytes a user may get before anything of its alerts can change: `antenna alerts watch` remembers it, and asks
-- again once they have landed (decision 41).

-- What is known of users' periods at an instant: of the period of each within which another instant lies.
-- `complete`: all of its hours are published and have no late rows; `was_published`: they were at an earlier look.
-- `noted`: some percentage of the user's rule is reached, or there is an alert of the period; nothing changes for the others.
-- `headroom`: with so many more bytes the next percentage is reached, with fewer nothing changes; 2^62 if none is left; 0 if
-- that is not known, as of a user without metadata, who may get them at any time. `starts` and `ends` are null if there is no
-- quota of such periods: `headroom` is that of any time then.
CREATE FUNCTION ledger.watched_usage(of_users text[], of_period text, within timestamptz, instant timestamptz)
RETURNS TABLE (id text, starts timestamptz, ends timestamptz, quota bigint, published numeric, live numeric, exact boolean,
    complete boolean, was_published boolean, percents integer[], cool_down interval, noted boolean, headroom bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    most CONSTANT bigint := 4611686018427387904;
    today CONSTANT date := (within AT TIME ZONE 'UTC')::date;
    with_quota text[] := of_users;
    alike record;
    places record;
    until timestamptz;
    whole boolean;
    once boolean;
BEGIN
    IF of_period <> 'hour' THEN
        -- A quota of such periods is rare, and their sums take longest.
        with_quota := ARRAY(
            SELECT one.id FROM unnest(of_users) AS one (id)
            WHERE (SELECT source FROM ledger.quota_at(one.id, of_period, instant)) IS NOT NULL
                OR EXISTS (SELECT FROM public.alert WHERE alert.id = one.id AND period = of_period));
        RETURN QUERY
        SELECT one.id, NULL::timestamptz, NULL::timestamptz, NULL::bigint, NULL::numeric, NULL::numeric, NULL::boolean,
            NULL::boolean, NULL::boolean, NULL::integer[], NULL::interval, false,
            CASE WHEN EXISTS (SELECT FROM public.user_metadata AS users WHERE users.id = one.id) THEN most ELSE 0 END
        FROM unnest(of_users) AS one (id) WHERE NOT EXISTS (SELECT FROM unnest(with_quota) AS has (id) WHERE has.id = one.id);
    END IF;
    FOR alike IN
        SELECT span.day, span.starts, span.ends, span.zone, array_agg(one.id) AS ids
        FROM (
            -- Users whose zone has long been the same have the same periods.
            SELECT array_agg(user_.id) AS ids
            FROM unnest(with_quota) AS user_ (id)
            LEFT JOIN LATERAL (
                SELECT change.zone, change.from_day FROM public.user_zone_change AS change
                WHERE of_period <> 'hour' AND change.id = user_.id ORDER BY change.from_day DESC LIMIT 1
            ) AS newest ON true
            GROUP BY newest.zone, CASE WHEN newest.from_day > today - 40 THEN user_.id END
        ) AS same
        CROSS JOIN LATERAL (
            SELECT *, CASE of_period WHEN 'hour' THEN '' ELSE ledger.user_zone(same.ids[1], day) END AS zone
            FROM ledger.period_at(same.ids[1], of_period, within)
        ) AS span
        CROSS JOIN LATERAL unnest(same.ids) AS one (id)
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
            whole, once, rule.percents, rule.cool_down,
            has_alert.percents IS NOT NULL OR coalesce(next.reached, false),
            CASE
                WHEN NOT places.exact OR once OR users.id IS NULL THEN 0
                WHEN in_force.quota = 0 AND used.published + used.live = 0 THEN 1
                ELSE least(coalesce(next.bytes - used.published - used.live, most), most)::bigint
            END
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
        LEFT JOIN LATERAL (
            SELECT array_agg(alert.percent) AS percents FROM public.alert
            WHERE alert.id = used.id AND period = of_period AND alert.starts = alike.starts
        ) AS has_alert ON true
        CROSS JOIN LATERAL (
            SELECT min(bytes) FILTER (WHERE bytes > used.published + used.live) AS bytes,
                bool_or(of_rule AND bytes <= used.published + used.live AND used.published + used.live > 0) AS reached
            FROM (
                SELECT ceil(in_force.quota::numeric * percent / 100) AS bytes, true AS of_rule
                FROM unnest(rule.percents) AS percent
                UNION ALL
                SELECT ceil(in_force.quota::numeric * percent / 100), false FROM unnest(has_alert.percents) AS percent
            ) AS step
        ) AS next;
    END LOOP;
END $$;

-- The newest zone of each user that ever had one of its own, and the first day in it; '' is the billing zone again.
CREATE FUNCTION ledger.newest_zones() RETURNS TABLE (id text, zone text, from_day date) LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (change.id) change.id, coalesce(change.zone, ''), change.from_day
    FROM public.user_zone_change AS change ORDER BY change.id, change.from_day DESC
$$;

-- The headroom of all users at once, for a watch that begins: until the first percentage, and 0 of those who have reached it,
-- whom nobody may have been told of. Without those who have an alert in the period, or have moved to another zone lately, or
-- of whose sums something is missing. Everything is read once: of a million users, which the planner takes for few, nested
-- loops would take hours.
CREATE FUNCTION ledger.headroom_of_all(of_period text, instant timestamptz)
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
        CROSS JOIN LATERAL ledger.period_at(same.id, of_period, instant) AS span
    LOOP
        SELECT * INTO places FROM ledger.usage_places(
            alike.one, of_period, alike.day, alike.starts, least(instant + interval '5 minutes', alike.ends), instant);
        CONTINUE WHEN NOT places.exact;
        RETURN QUERY
        WITH rule AS (
            SELECT of_some.user_id, of_some.plan, (SELECT min(percent) FROM unnest(of_some.percents) AS percent) AS percent
            FROM public.alert_rule AS of_some WHERE of_some.period = of_period
        )
        SELECT users.id, alike.starts, alike.ends,
            CASE
                WHEN in_force.quota IS NULL THEN most
                WHEN in_force.quota = 0 AND coalesce(used.bytes, 0) = 0 THEN 1
                WHEN first.percent IS NULL THEN most
                ELSE least(greatest(
                    ceil(in_force.quota::numeric * first.percent / 100) - coalesce(used.bytes, 0), 0), most)::bigint
            END
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
        LEFT JOIN ledger.newest_zones() AS moved ON moved.id = users.id AND of_period <> 'hour'
        WHERE moved.zone IS NOT DISTINCT FROM alike.zone AND (moved.from_day IS NULL OR moved.from_day <= today - 40)
            AND NOT EXISTS (SELECT FROM public.alert
                WHERE alert.id = users.id AND alert.period = of_period AND alert.starts = alike.starts);
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION ledger.alert_usage(of_users text[], of_period text, within timestamptz, instant timestamptz)
RETURNS TABLE (id text, starts timestamptz, ends timestamptz, quota bigint, published numeric, live numeric, exact boolean,
    complete boolean, was_published boolean, percents integer[], cool_down interval) LANGUAGE sql STABLE AS $$
    SELECT used.id, used.starts, used.ends, used.quota, used.published, used.live, used.exact, used.complete,
        used.was_published, used.percents, used.cool_down
    FROM ledger.watched_usage(of_users, of_period, within, instant) AS used WHERE used.noted
$$;

-- How often quotas were corrected for the past. Whom a change of now concerns is found by its instant (`quotas_changed`), and
-- whoever has just got metadata was not remembered: so only what is written into the history by itself counts.
CREATE TABLE ledger.correction_count (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    number bigint NOT NULL
);
INSERT INTO ledger.correction_count (number) VALUES (0);
GRANT SELECT ON ledger.correction_count TO antenna_watch;

CREATE FUNCTION ledger.quotas_corrected() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM changed WHERE valid_from < clock_timestamp() - interval '1 minute') THEN
        UPDATE ledger.correction_count SET number = number + 1;
    END IF;
    RETURN NULL;
END $$;
-- By their names after those that lock the users' version: who locks both does so in one order.
DO $$
DECLARE
    history text;
BEGIN
    FOREACH history IN ARRAY ARRAY['user_quota_change', 'user_plan_change', 'plan_quota_change'] LOOP
        EXECUTE format('CREATE TRIGGER watch_is_told_of_insert AFTER INSERT ON public.%I REFERENCING NEW TABLE AS changed
            FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.quotas_corrected()', history);
        EXECUTE format('CREATE TRIGGER watch_is_told_of_update AFTER UPDATE ON public.%I REFERENCING NEW TABLE AS changed
            FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.quotas_corrected()', history);
        EXECUTE format('CREATE TRIGGER watch_is_told_of_delete AFTER DELETE ON public.%I REFERENCING OLD TABLE AS changed
            FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.quotas_corrected()', history);
    END LOOP;
END $$;

-- Changes after which what is remembered of users' headroom may be wrong: of zones, rules, and of quotas for the past.
CREATE FUNCTION ledger.headroom_basis() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws(' ',
        (SELECT max(change.number) FROM public.user_zone_change AS change),
        (SELECT billing.zone FROM ledger.billing_zone AS billing),
        (SELECT counted.number FROM ledger.correction_count AS counted),
        (SELECT md5(string_agg(rule::text, '' ORDER BY rule.number)) FROM public.alert_rule AS rule))
$$;

-- Whether an hour that is published had fewer bytes than landed, or still has: what comes of it is no news that landed.
GRANT SELECT (asset, hour, generation, bytes) ON ledger.publication TO antenna_watch;

-- When the users that the watch knows were changed. Who changes users holds the lock of their version from before the first
-- change to the commit: what a look has not seen was made later than that, however long ago. Null: not known.
ALTER TABLE ledger.alert_head ADD COLUMN users_changed_at timestamptz;
