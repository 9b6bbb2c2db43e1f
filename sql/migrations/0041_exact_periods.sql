-- Sums of a period whose end cuts an hour, or that has late rows in a published day; an allowance with a part missing.

-- An hour that the end of a period cuts, as that of a day in Kathmandu, is taken from its live windows, as one that the
-- beginning cuts always was: its published sum has bytes of the next period. A published day of which rows landed since is
-- added up from its hours, as long as there are live sums of these rows, and users of these hours. After that what is
-- published counts until it is published again, and is not exact: what has been used never becomes less.
CREATE OR REPLACE FUNCTION ledger.usage_places(
    of_user text, period text, of_day date, starts timestamptz, until timestamptz, instant timestamptz,
    OUT days date[], OUT hours timestamptz[], OUT windows timestamptz[], OUT exact boolean)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    since timestamptz := starts;
    first date;
    rest date;
    late timestamptz;
    live_from timestamptz;
    users_from timestamptz;
    apart_from timestamptz;
    up_to_date boolean := true;
BEGIN
    live_from := greatest(instant - interval '7 days', (
        SELECT CASE WHEN left_out THEN 'infinity' ELSE kept_from END FROM ledger.live_table WHERE name = 'bytes_agg_user'));
    users_from := coalesce((SELECT kept.kept_from FROM ledger.user_hours AS kept), '-infinity');
    -- The day of a later hour has users of all its hours, and live sums of those that are not published as they landed.
    apart_from := greatest(live_from, users_from + interval '25 hours');
    days := '{}';
    IF period <> 'hour' THEN
        -- The days at its beginning, or from that of the ledger's first hour on, that are published and up to date, or that
        -- cannot be added up from their hours.
        first := of_day;
        IF NOT EXISTS (SELECT FROM ledger.period_state AS state WHERE state.period = 'day' AND state.day = of_day) THEN
            first := greatest(of_day, (SELECT ledger.period_of('day', min(hour), ledger.user_zone(of_user, of_day))
                FROM ledger.hour));
        END IF;
        SELECT coalesce(array_agg(near.day ORDER BY near.day), '{}'), coalesce(bool_and(NOT near.dirty), true)
        INTO days, up_to_date
        FROM (
            SELECT state.day, state.dirty, row_number() OVER (ORDER BY state.day) AS place FROM ledger.period_state AS state
            WHERE state.period = 'day' AND state.day >= first AND state.day < ledger.next_period(usage_places.period, of_day)
                AND (NOT state.dirty OR state.first_hour < users_from)
        ) AS near
        WHERE near.day = first + near.place::integer - 1;
        rest := first + cardinality(days);
        since := greatest(starts, ledger.period_start('day', rest, ledger.user_zone(of_user, rest)));
        -- Rows that landed since: from their day on it is added up by hours, until the day is published again. An hour that
        -- was empty until then has no generation.
        SELECT min(landed.hour) FILTER (WHERE landed.hour >= apart_from),
            up_to_date AND coalesce(bool_and(landed.hour >= apart_from), true)
        INTO late, up_to_date
        FROM ledger.hour AS landed LEFT JOIN ledger.hour_generation AS sealed
            ON sealed.hour = landed.hour AND sealed.generation = landed.generation
            AND sealed.hour >= date_trunc('hour', starts, 'UTC') AND sealed.hour < since
        WHERE landed.hour >= date_trunc('hour', starts, 'UTC') AND landed.hour < since
            AND (coalesce(sealed.rows, 0) <> landed.rows OR NOT sealed.certified);
        IF late IS NOT NULL THEN
            SELECT coalesce(array_agg(near.day ORDER BY near.day), '{}') INTO days FROM unnest(days) AS near (day)
            WHERE ledger.period_start('day', near.day + 1, ledger.user_zone(of_user, near.day + 1)) <= late;
            rest := first + cardinality(days);
            since := greatest(starts, ledger.period_start('day', rest, ledger.user_zone(of_user, rest)));
        END IF;
    END IF;

    SELECT coalesce(array_agg(hour ORDER BY hour) FILTER (WHERE published), '{}'),
        up_to_date AND coalesce(bool_and((published AND rows_published = rows_landed) OR hour >= live_from), true)
    INTO hours, exact
    FROM (
        SELECT near.hour, coalesce(sealed.rows, 0) AS rows_published, coalesce(landed.rows, 0) AS rows_landed, (
            (near.hour >= since AND near.hour + interval '1 hour' <= until AND near.hour >= users_from
                AND (sealed.rows = landed.rows OR (sealed.rows IS NOT NULL AND near.hour < live_from)))
            OR (coalesce(landed.rows, 0) = 0 AND near.hour < newest.hour)) IS TRUE AS published
        FROM generate_series(
            date_trunc('hour', since, 'UTC'), until - interval '1 microsecond', interval '1 hour') AS near (hour)
        CROSS JOIN (SELECT coalesce(max(hour), '-infinity') AS hour FROM ledger.hour) AS newest
        LEFT JOIN LATERAL (SELECT one.rows FROM ledger.hour AS one WHERE one.hour = near.hour LIMIT 1) AS landed ON true
        LEFT JOIN LATERAL (
            SELECT one.rows FROM ledger.publication_head AS head JOIN ledger.hour_generation AS one USING (hour, generation)
            WHERE head.asset = 'bytes_agg_user_1h' AND head.hour = near.hour LIMIT 1
        ) AS sealed ON true
        WHERE since < until
    ) AS near;

    SELECT coalesce(array_agg(DISTINCT near.begins)
            -- One that goes on beyond the end of a period that has ended has bytes of the next one.
            FILTER (WHERE near.begins >= since AND (until > instant OR near.begins + used.length <= until)), '{}'),
        exact AND NOT coalesce(bool_or(
            (near.begins < since AND near.begins + used.length > since)
            -- Else it goes on to the end of a running period, within which all that is counted lies.
            OR (until < instant + interval '5 minutes' AND near.begins + used.length > until)), false)
    INTO windows, exact
    FROM ledger.live_window AS used
    CROSS JOIN LATERAL generate_series(
        date_trunc('hour', since, 'UTC'), until - interval '1 microsecond', used.length) AS near (begins)
    WHERE used.name = 'bytes_agg_user' AND since < until AND date_trunc('hour', near.begins, 'UTC') <> ALL (hours);
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
