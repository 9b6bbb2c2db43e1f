-- What a user has used of a running period, and whether it may go on: `SELECT * FROM allowance('id', 1000000, 'day')`.

-- The lengths of the live tables' windows, each once used (ANTENNA_WINDOW, ANTENNA_LIVE). Windows are looked up one by one.
CREATE TABLE ledger.live_window (
    name text NOT NULL,
    length interval NOT NULL CHECK (length > interval '0' AND length <= interval '1 hour'),
    used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, length)
);
INSERT INTO ledger.live_window (name, length)
SELECT name, interval '5 minutes' FROM unnest(ARRAY['bytes_agg_antenna', 'bytes_agg_user', 'bytes_agg_app']) AS name;
GRANT SELECT, INSERT, UPDATE ON ledger.live_window TO antenna_stream;
GRANT SELECT ON ledger.live_window TO antenna_publisher, antenna_administrator;

-- A user's period at an instant. Days and months lie in the user's zone, which may have changed at midnight; hours in UTC.
CREATE FUNCTION ledger.period_at(of_user text, period text, instant timestamptz,
    OUT day date, OUT starts timestamptz, OUT ends timestamptz) LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF period = 'hour' THEN
        starts := date_trunc('hour', instant, 'UTC');
        ends := starts + interval '1 hour';
        RETURN;
    ELSIF period NOT IN ('day', 'month') THEN
        RAISE invalid_parameter_value USING MESSAGE = format('expected the period hour, day or month, found %L', period);
    END IF;
    SELECT near INTO day FROM unnest(ARRAY[1, 0, -1, -2]) AS step
    CROSS JOIN LATERAL (SELECT (instant AT TIME ZONE 'UTC')::date + step) AS days (near)
    WHERE ledger.period_start('day', near, ledger.user_zone(of_user, near)) <= instant ORDER BY near DESC LIMIT 1;
    IF period = 'month' THEN
        day := date_trunc('month', day::timestamp)::date;
    END IF;
    starts := ledger.period_start(period, day, ledger.user_zone(of_user, day));
    ends := ledger.period_start(
        period, ledger.next_period(period, day), ledger.user_zone(of_user, ledger.next_period(period, day)));
END $$;

-- Where the bytes of a period are found, each once: in its first days that are published, else in published hours, else in
-- live windows. A published hour that has late rows since is taken from its live windows. `exact` is false where something is in
-- none of them, or a window crosses `starts`. `instant`: now.
CREATE FUNCTION ledger.usage_places(
    of_user text, period text, of_day date, starts timestamptz, until timestamptz, instant timestamptz,
    OUT days date[], OUT hours timestamptz[], OUT windows timestamptz[], OUT exact boolean) LANGUAGE plpgsql STABLE AS $$
DECLARE
    since timestamptz := starts;
    rest date;
    live_from timestamptz;
BEGIN
    days := '{}';
    IF period <> 'hour' THEN
        -- The days at its beginning that are published, and up to date.
        rest := of_day;
        WHILE rest < ledger.next_period(period, of_day) AND EXISTS (
            SELECT FROM ledger.period_state AS state WHERE state.period = 'day' AND state.day = rest AND NOT state.dirty
        ) LOOP
            days := days || rest;
            rest := rest + 1;
        END LOOP;
        since := greatest(starts, ledger.period_start('day', rest, ledger.user_zone(of_user, rest)));
    END IF;

    live_from := greatest(instant - interval '7 days', (
        SELECT CASE WHEN left_out THEN 'infinity' ELSE kept_from END FROM ledger.live_table WHERE name = 'bytes_agg_user'));

    SELECT coalesce(array_agg(hour ORDER BY hour) FILTER (WHERE published), '{}'),
        coalesce(bool_and(published OR hour >= live_from), true)
    INTO hours, exact
    FROM (
        SELECT near.hour, near.hour >= since AND near.hour >= coalesce(kept.kept_from, '-infinity')
            AND sealed.rows IS NOT DISTINCT FROM landed.rows AND head.generation IS NOT NULL AS published
        FROM generate_series(
            date_trunc('hour', since, 'UTC'), until - interval '1 microsecond', interval '1 hour') AS near (hour)
        CROSS JOIN ledger.user_hours AS kept
        LEFT JOIN ledger.publication_head AS head ON head.asset = 'bytes_agg_user_1h' AND head.hour = near.hour
        LEFT JOIN ledger.hour AS landed ON landed.hour = near.hour
        LEFT JOIN ledger.hour_generation AS sealed ON sealed.hour = head.hour AND sealed.generation = head.generation
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

-- The bytes of users in these places, by the keys of the tables. The partitions are pruned when it is planned, hence never a
-- generic plan: one would lock the partitions of all days.
CREATE FUNCTION ledger.usage_in(of_users text[], days date[], hours timestamptz[], windows timestamptz[])
RETURNS TABLE (id text, published numeric, live numeric)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN QUERY
    SELECT one.id,
        coalesce((SELECT sum(used.sum_user_bytes) FROM public.bytes_agg_user_1d AS used
            WHERE used.id = one.id AND used.day = ANY (days)
                AND used.day >= days[1] AND used.day <= days[cardinality(days)]), 0)
        + coalesce((SELECT sum(used.sum_user_bytes) FROM public.bytes_agg_user_1h AS used
            WHERE used.id = one.id AND used.date = ANY (hours)
                AND used.date >= hours[1] AND used.date <= hours[cardinality(hours)]), 0),
        coalesce((SELECT sum(used.sum_user_bytes) FROM public.bytes_agg_user AS used
            WHERE used.id = one.id AND used.date = ANY (windows)), 0)
    FROM unnest(of_users) AS one (id);
END $$;

-- What a user has used of the period within which an instant lies, by now: `published` in hours and days that are published,
-- `live` by the sums that the stream keeps of the others. `exact`: nothing that was read is missing.
CREATE FUNCTION ledger.period_usage_at(of_user text, of_period text, within timestamptz, instant timestamptz,
    OUT starts timestamptz, OUT ends timestamptz, OUT published numeric, OUT live numeric, OUT exact boolean,
    OUT source text, OUT newest_hour timestamptz) LANGUAGE plpgsql STABLE AS $$
DECLARE
    day date;
    places record;
BEGIN
    SELECT span.day, span.starts, span.ends INTO day, starts, ends FROM ledger.period_at(of_user, of_period, within) AS span;
    -- Events may be that far ahead of the clock.
    SELECT * INTO places
    FROM ledger.usage_places(of_user, of_period, day, starts, least(instant + interval '5 minutes', ends), instant);
    SELECT found.published, found.live INTO published, live
    FROM ledger.usage_in(ARRAY[of_user], places.days, places.hours, places.windows) AS found;
    exact := places.exact;
    source := CASE
        WHEN places.days = '{}' AND places.hours = '{}' THEN 'live'
        WHEN places.windows = '{}' THEN 'published'
        ELSE 'published and live'
    END;
    newest_hour := places.hours[cardinality(places.hours)];
END $$;

CREATE FUNCTION period_usage(id text, INOUT period text DEFAULT 'day', within timestamptz DEFAULT statement_timestamp(),
    OUT starts timestamptz, OUT ends timestamptz, OUT used numeric, OUT published numeric, OUT live numeric,
    OUT exact boolean, OUT source text) LANGUAGE sql STABLE AS $$
    SELECT period_usage.period, found.starts, found.ends, found.published + found.live, found.published, found.live,
        found.exact, found.source
    FROM ledger.period_usage_at(period_usage.id, period_usage.period, period_usage.within, statement_timestamp()) AS found
$$;

-- May this user transfer so many more bytes in the running period? `answer` says it in words:
-- - 'allowed', 'over quota': used and requested bytes together are at most the quota, or more;
-- - 'unlimited', 'no quota', 'unknown user': there is nothing to compare with; only the first is a yes;
-- - 'stale': the stream waits, or what it has counted is older than `stale_after`, so that a yes would be a guess.
-- `allowed` is null where it is neither a yes nor a no. `used` is `published` and `live` together: of published hours, and
-- of the sums that the stream keeps of the others. Everything that Kafka held at `as_of` is in them, and `exact` says that
-- nothing is missing. `generation` and `certificate` are of the newest published hour in it.
CREATE FUNCTION ledger.allowance_at(id text, bytes bigint, INOUT period text, stale_after interval, instant timestamptz,
    OUT "user" text, OUT answer text, OUT allowed boolean, OUT quota bigint, OUT used numeric, OUT remaining numeric,
    OUT requested bigint, OUT starts timestamptz, OUT ends timestamptz, OUT as_of timestamptz, OUT lag_seconds float8,
    OUT exact boolean, OUT source text, OUT published numeric, OUT live numeric, OUT generation integer,
    OUT certificate bigint)
LANGUAGE plpgsql STABLE AS $$
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
        ELSE 'allowed'
    END;
    allowed := CASE WHEN answer IN ('allowed', 'unlimited') THEN true WHEN answer = 'over quota' THEN false END;
END $$;

CREATE FUNCTION allowance(id text, bytes bigint DEFAULT 1, INOUT period text DEFAULT 'hour',
    stale_after interval DEFAULT interval '1 minute',
    OUT "user" text, OUT answer text, OUT allowed boolean, OUT quota bigint, OUT used numeric, OUT remaining numeric,
    OUT requested bigint, OUT starts timestamptz, OUT ends timestamptz, OUT as_of timestamptz, OUT lag_seconds float8,
    OUT exact boolean, OUT source text, OUT published numeric, OUT live numeric, OUT generation integer,
    OUT certificate bigint)
LANGUAGE sql STABLE AS $$
    SELECT * FROM ledger.allowance_at(
        allowance.id, allowance.bytes, allowance.period, allowance.stale_after, statement_timestamp())
$$;
