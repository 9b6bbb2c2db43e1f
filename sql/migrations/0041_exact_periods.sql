-- Sums of a period whose end cuts an hour, or that has late rows in a published day; an allowance with a part missing.

-- An hour that the end of a period cuts, as that of a day in Kathmandu, is taken from its live windows, as one that the
-- beginning cuts always was: its published sum has bytes of the next period. Each day of a period is taken by itself: as it is
-- published, or added up from its hours and live windows, if rows have landed since that these have. Where these no longer
-- have all of it, as users of its hours are dropped, or live windows of an hour that its beginning or end cuts, it is taken as
-- published, and is not exact until it is published again: what has been used never becomes less.
CREATE OR REPLACE FUNCTION ledger.usage_places(
    of_user text, period text, of_day date, starts timestamptz, until timestamptz, instant timestamptz,
    OUT days date[], OUT hours timestamptz[], OUT windows timestamptz[], OUT exact boolean)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    first date;
    past date;
    live_from timestamptz;
    users_from timestamptz;
    up_to_date boolean := true;
    behind date[];
    late timestamptz[];
    one date;
    begins timestamptz;
    ends timestamptz;
    -- The parts of the period that are in no published day.
    gaps_from timestamptz[] := ARRAY[starts];
    gaps_to timestamptz[] := ARRAY[until];
BEGIN
    live_from := greatest(instant - interval '7 days', (
        SELECT CASE WHEN left_out THEN 'infinity' ELSE kept_from END FROM ledger.live_table WHERE name = 'bytes_agg_user'));
    users_from := coalesce((SELECT kept.kept_from FROM ledger.user_hours AS kept), '-infinity');
    days := '{}';
    IF period <> 'hour' THEN
        past := ledger.next_period(usage_places.period, of_day);
        SELECT coalesce(array_agg(state.day ORDER BY state.day), '{}'),
            coalesce(array_agg(state.day) FILTER (WHERE state.dirty), '{}')
        INTO days, behind
        FROM ledger.period_state AS state WHERE state.period = 'day' AND state.day >= of_day AND state.day < past;
        IF days <> '{}' THEN
            -- Rows that landed since. An hour that was empty until then has no generation.
            ends := ledger.period_start('day', days[cardinality(days)] + 1,
                ledger.user_zone(of_user, days[cardinality(days)] + 1));
            SELECT coalesce(array_agg(landed.hour), '{}') INTO late
            FROM ledger.hour AS landed LEFT JOIN ledger.hour_generation AS sealed
                ON sealed.hour = landed.hour AND sealed.generation = landed.generation
                AND sealed.hour >= date_trunc('hour', starts, 'UTC') AND sealed.hour < ends
            WHERE landed.hour >= date_trunc('hour', starts, 'UTC') AND landed.hour < ends
                AND (coalesce(sealed.rows, 0) <> landed.rows OR NOT sealed.certified);
            IF late <> '{}' OR behind <> '{}' THEN
                FOR one, begins, ends IN
                    SELECT near.day, ledger.period_start('day', near.day, ledger.user_zone(of_user, near.day)),
                        ledger.period_start('day', near.day + 1, ledger.user_zone(of_user, near.day + 1))
                    FROM (
                        SELECT unnest(behind) AS day
                        UNION
                        SELECT (hour AT TIME ZONE 'UTC')::date + step FROM unnest(late) AS hour, generate_series(-1, 1) AS step
                    ) AS near WHERE near.day = ANY (days)
                LOOP
                    CONTINUE WHEN one <> ALL (behind) AND NOT EXISTS (
                        SELECT FROM unnest(late) AS hour WHERE hour + interval '1 hour' > begins AND hour < ends);
                    -- Without live sums of a late row, the hours have what the day has.
                    IF (one = ANY (behind) OR EXISTS (
                            SELECT FROM unnest(late) AS hour
                            WHERE hour + interval '1 hour' > begins AND hour < ends AND hour >= live_from))
                        AND date_trunc('hour', begins, 'UTC') >= users_from
                        AND NOT EXISTS (
                            SELECT FROM unnest(ARRAY[begins, ends]) AS bound JOIN ledger.hour AS landed
                                ON landed.hour = date_trunc('hour', bound, 'UTC') AND landed.hour < bound
                            WHERE landed.hour < live_from AND landed.rows > 0)
                    THEN
                        days := array_remove(days, one);
                    ELSE
                        up_to_date := false;
                    END IF;
                END LOOP;
            END IF;
        END IF;
        -- Before the day of the ledger's first hour there is nothing.
        first := greatest(of_day, least(days[1], (
            SELECT ledger.period_of('day', min(hour), ledger.user_zone(of_user, of_day)) FROM ledger.hour)));
        SELECT coalesce(array_agg(gap.since ORDER BY gap.since), '{}'), coalesce(array_agg(gap.until ORDER BY gap.since), '{}')
        INTO gaps_from, gaps_to
        FROM (
            SELECT greatest(starts, ledger.period_start('day', run.since, ledger.user_zone(of_user, run.since))) AS since,
                CASE WHEN run.until = past THEN usage_places.until
                    ELSE least(usage_places.until,
                        ledger.period_start('day', run.until, ledger.user_zone(of_user, run.until))) END AS until
            FROM (
                SELECT coalesce(lag(day) OVER (ORDER BY day) + 1, first) AS since, day AS until
                FROM unnest(days || past) AS day
            ) AS run
            WHERE run.since < run.until
        ) AS gap
        WHERE gap.since < gap.until;
    END IF;

    SELECT coalesce(array_agg(hour ORDER BY hour) FILTER (WHERE published), '{}'),
        up_to_date AND coalesce(bool_and((published AND rows_published = rows_landed) OR hour >= live_from), true)
    INTO hours, exact
    FROM (
        SELECT near.hour, coalesce(sealed.rows, 0) AS rows_published, coalesce(landed.rows, 0) AS rows_landed, (
            (near.hour >= gap.since AND near.hour + interval '1 hour' <= gap.until AND near.hour >= users_from
                AND (sealed.rows = landed.rows OR (sealed.rows IS NOT NULL AND near.hour < live_from)))
            OR (coalesce(landed.rows, 0) = 0 AND near.hour < newest.hour)) IS TRUE AS published
        FROM unnest(gaps_from, gaps_to) AS gap (since, until)
        CROSS JOIN LATERAL generate_series(
            date_trunc('hour', gap.since, 'UTC'), gap.until - interval '1 microsecond', interval '1 hour') AS near (hour)
        CROSS JOIN (SELECT coalesce(max(hour), '-infinity') AS hour FROM ledger.hour) AS newest
        LEFT JOIN LATERAL (SELECT one.rows FROM ledger.hour AS one WHERE one.hour = near.hour LIMIT 1) AS landed ON true
        LEFT JOIN LATERAL (
            SELECT one.rows FROM ledger.publication_head AS head JOIN ledger.hour_generation AS one USING (hour, generation)
            WHERE head.asset = 'bytes_agg_user_1h' AND head.hour = near.hour LIMIT 1
        ) AS sealed ON true
        WHERE gap.since < gap.until
    ) AS near;

    SELECT coalesce(array_agg(DISTINCT near.begins)
            -- One that goes on beyond the end of a part that has ended has bytes of the next one.
            FILTER (WHERE near.begins >= gap.since
                AND (gap.until > instant OR near.begins + used.length <= gap.until)), '{}'),
        exact AND NOT coalesce(bool_or(
            (near.begins < gap.since AND near.begins + used.length > gap.since)
            -- Else it goes on to the end of a running period, within which all that is counted lies.
            OR (gap.until < instant + interval '5 minutes' AND near.begins + used.length > gap.until)), false)
    INTO windows, exact
    FROM unnest(gaps_from, gaps_to) AS gap (since, until)
    CROSS JOIN ledger.live_window AS used
    CROSS JOIN LATERAL generate_series(
        date_trunc('hour', gap.since, 'UTC'), gap.until - interval '1 microsecond', used.length) AS near (begins)
    WHERE used.name = 'bytes_agg_user' AND gap.since < gap.until
        AND date_trunc('hour', near.begins, 'UTC') <> ALL (hours);
END $$;

-- May this user transfer so many more bytes in the running period? `answer` says it in words:
-- - 'allowed', 'over quota': used and requested bytes together are at most the quota, or more;
-- - 'unlimited', 'no quota', 'unknown user': there is nothing to compare with; only the first is a yes;
-- - 'stale': the stream waits, or what it has counted is older than `stale_after`, so that a yes would be a guess;
-- - 'incomplete': a part of the period is in no table, so that it would be one as well.
-- `allowed` is null where it is neither a yes nor a no. `used` is `published` and `live` together: of published hours, and
-- of the sums that the stream keeps of the others. Everything that Kafka held at `as_of` is in them, and `exact` says that
-- nothing is missing. `generation` and `certificate` are of the newest published hour in it.
CREATE OR REPLACE FUNCTION ledger.allowance_at(
    id text, bytes bigint, INOUT period text, stale_after interval, instant timestamptz,
    OUT "user" text, OUT answer text, OUT allowed boolean, OUT quota bigint, OUT used numeric, OUT remaining numeric,
    OUT requested bigint, OUT starts timestamptz, OUT ends timestamptz, OUT as_of timestamptz, OUT lag_seconds float8,
    OUT exact boolean, OUT source text, OUT published numeric, OUT live numeric, OUT generation integer,
    OUT certificate bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    usage record;
    in_force record;
    stale boolean;
BEGIN
    IF bytes IS NULL OR bytes < 0 THEN
        RAISE invalid_parameter_value USING MESSAGE = format(
            'expected a number of bytes from 0 on, found %s', coalesce(bytes::text, 'null'));
    END IF;
    "user" := allowance_at.id;
    requested := bytes;
    SELECT * INTO usage FROM ledger.period_usage_at("user", period, instant, instant);
    starts := usage.starts;
    ends := usage.ends;
    published := usage.published;
    live := usage.live;
    used := published + live;
    source := usage.source;
    SELECT newest.number, newest.generation INTO certificate, generation FROM ledger.certificate AS newest
    WHERE newest.hour = usage.newest_hour ORDER BY newest.number DESC LIMIT 1;

    SELECT head.read_past, extract(epoch FROM instant - head.read_past),
        head.waiting_for IS NULL AND head.read_past >= instant - stale_after
    INTO as_of, lag_seconds, stale FROM ledger.head AS head;
    stale := stale IS NOT TRUE;
    exact := usage.exact AND NOT stale;

    SELECT * INTO in_force FROM ledger.quota_at("user", period, instant);
    quota := in_force.quota;
    remaining := CASE WHEN quota IS NOT NULL THEN greatest(quota - used, 0) END;
    answer := CASE
        WHEN NOT EXISTS (SELECT FROM public.user_metadata AS users WHERE users.id = "user") THEN 'unknown user'
        WHEN in_force.source IS NULL THEN 'no quota'
        WHEN quota IS NULL THEN 'unlimited'
        -- What has been used does not become less.
        WHEN used + bytes > quota THEN 'over quota'
        WHEN stale THEN 'stale'
        WHEN NOT exact THEN 'incomplete'
        ELSE 'allowed'
    END;
    allowed := CASE WHEN answer IN ('allowed', 'unlimited') THEN true WHEN answer = 'over quota' THEN false END;
END $$;

-- As before, but newcomers are told of as soon as anything has landed: such a user has its quotas from the beginning on, and
-- may have used them up, so `antenna alerts watch` asks.
CREATE OR REPLACE FUNCTION ledger.begin_quotas(ids text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
BEGIN
    WITH users AS (
        SELECT id, user_metadata.quota, user_metadata.plan, own.ended,
            own.valid_from IS NULL AND planned.valid_from IS NULL AS new,
            own.quota AS own_quota, planned.plan AS own_plan
        FROM unnest(ids) AS id JOIN public.user_metadata USING (id)
        LEFT JOIN LATERAL (
            SELECT change.valid_from, change.quota, change.ended FROM public.user_quota_change AS change
            WHERE change.id = user_metadata.id AND change.period = 'hour' ORDER BY change.valid_from DESC LIMIT 1
        ) AS own ON true
        LEFT JOIN LATERAL (
            SELECT change.valid_from, change.plan FROM public.user_plan_change AS change
            WHERE change.id = user_metadata.id ORDER BY change.valid_from DESC LIMIT 1
        ) AS planned ON true
    ), own AS (
        INSERT INTO public.user_quota_change (id, period, valid_from, quota)
        SELECT id, 'hour', CASE WHEN new THEN '-infinity' ELSE at END, quota FROM users
        WHERE (quota IS NOT NULL OR plan IS NULL) AND (ended IS DISTINCT FROM false OR own_quota IS DISTINCT FROM quota)
    )
    INSERT INTO public.user_plan_change (id, valid_from, plan)
    SELECT id, CASE WHEN new THEN '-infinity' ELSE at END, plan FROM users
    WHERE plan IS NOT NULL AND own_plan IS DISTINCT FROM plan;

    INSERT INTO ledger.newcomer (id) SELECT unnest(ids)
    WHERE EXISTS (SELECT FROM ledger.batch) OR EXISTS (SELECT FROM ledger.publication_head WHERE asset = 'bytes_agg_user_1h')
    ON CONFLICT (id) DO UPDATE SET arrived_at = excluded.arrived_at;
END $$;

GRANT SELECT ON ledger.newcomer TO antenna_watch;

-- Changes after which a percentage may be reached by what landed long before: of rules, and of quotas for the past.
CREATE FUNCTION ledger.reach_basis() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws(' ',
        (SELECT billing.zone FROM ledger.billing_zone AS billing),
        (SELECT counted.number FROM ledger.correction_count AS counted),
        (SELECT md5(string_agg(rule::text, '' ORDER BY rule.number)) FROM public.alert_rule AS rule))
$$;
-- Headroom rests on the same, and on users' zones, as before.
CREATE OR REPLACE FUNCTION ledger.headroom_basis() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws(' ', (SELECT max(change.number) FROM public.user_zone_change AS change), ledger.reach_basis())
$$;
-- The basis of the last look. Null: not known.
ALTER TABLE ledger.alert_head ADD COLUMN basis text;

-- How far the watch has looked in the chain of days and months: a day is confirmed, or corrected, when it is published.
ALTER TABLE ledger.alert_head ADD COLUMN period_certificate bigint NOT NULL DEFAULT 0;
UPDATE ledger.alert_head SET period_certificate = (SELECT head.number FROM ledger.period_certificate_head AS head);
GRANT SELECT (number, period, day) ON ledger.period_certificate TO antenna_watch;
GRANT SELECT (number) ON ledger.period_certificate_head TO antenna_watch;
