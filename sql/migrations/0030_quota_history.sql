-- Quotas with a history: an hour is judged by the quota that was in force at its last instant, whatever it is today.

-- A group of users with the same quotas. Who is in one and has a quota of its own has the latter.
CREATE TABLE plan (
    name text PRIMARY KEY CHECK (name <> '')
);

-- Null quota: unlimited, here and below. A plan with quotas cannot be deleted: old hours are judged by them.
CREATE TABLE plan_quota_change (
    plan text NOT NULL REFERENCES plan,
    period text NOT NULL CHECK (period IN ('hour', 'day', 'month')),
    -- It becomes true with time and never false again, as a check must.
    valid_from timestamptz NOT NULL DEFAULT clock_timestamp()
        CONSTRAINT plan_quota_change_in_the_future CHECK (valid_from <= clock_timestamp()),
    quota bigint CHECK (quota >= 0),
    PRIMARY KEY (plan, period, valid_from)
);

-- What holds from an instant on: a quota, or, where it has ended, that of the user's plan.
CREATE TABLE user_quota_change (
    id text NOT NULL,
    period text NOT NULL CHECK (period IN ('hour', 'day', 'month')),
    valid_from timestamptz NOT NULL DEFAULT clock_timestamp()
        CONSTRAINT user_quota_change_in_the_future CHECK (valid_from <= clock_timestamp()),
    quota bigint CHECK (quota >= 0),
    ended boolean NOT NULL DEFAULT false,
    PRIMARY KEY (id, period, valid_from),
    CHECK (NOT ended OR quota IS NULL)
);
-- The changes since an hour are few, whatever the number of users.
CREATE INDEX user_quota_change_by_time ON user_quota_change (period, valid_from);
CREATE INDEX user_quota_change_unlimited ON user_quota_change (id) WHERE quota IS NULL AND NOT ended;

-- Null: no plan. Without a foreign key: rows of `user_metadata` have it, and a million of them are looked up once.
CREATE TABLE user_plan_change (
    id text NOT NULL,
    valid_from timestamptz NOT NULL DEFAULT clock_timestamp()
        CONSTRAINT user_plan_change_in_the_future CHECK (valid_from <= clock_timestamp()),
    plan text,
    PRIMARY KEY (id, valid_from)
);
CREATE INDEX user_plan_change_by_time ON user_plan_change (valid_from);
CREATE INDEX user_plan_change_of_plan ON user_plan_change (plan);

-- `quota` stays the user's own quota of an hour; null: unlimited, or none of its own if it has a plan (`user_quota_change`
-- tells which). `zone` is where its days and months begin; null: ANTENNA_BILLING_ZONE.
ALTER TABLE user_metadata ADD COLUMN plan text REFERENCES plan, ADD COLUMN zone text;

INSERT INTO user_quota_change (id, period, valid_from, quota) SELECT id, 'hour', '-infinity', quota FROM user_metadata;

-- An own quota that ended has no row from then on.
CREATE VIEW quota_history AS
SELECT id, period, valid_from, quota, valid_to FROM (
    SELECT id, period, valid_from, quota, ended,
        lead(valid_from) OVER (PARTITION BY id, period ORDER BY valid_from) AS valid_to
    FROM user_quota_change
) AS change WHERE NOT ended;

-- The quota in force at an instant: one row. `source` is 'own' or 'plan'; null: no quota, as for a user that nobody knows.
CREATE FUNCTION ledger.quota_at(id text, period text, at timestamptz) RETURNS TABLE (source text, quota bigint)
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN NOT own.ended THEN 'own' WHEN planned.plan IS NOT NULL THEN 'plan' END,
        CASE WHEN NOT own.ended THEN own.quota ELSE planned.quota END
    FROM (SELECT) AS one
    LEFT JOIN LATERAL (
        SELECT change.quota, change.ended FROM public.user_quota_change AS change
        WHERE change.id = quota_at.id AND change.period = quota_at.period AND change.valid_from <= quota_at.at
        ORDER BY change.valid_from DESC LIMIT 1
    ) AS own ON true
    LEFT JOIN LATERAL (
        SELECT joined.plan, of_plan.quota
        FROM (
            SELECT change.plan FROM public.user_plan_change AS change
            WHERE change.id = quota_at.id AND change.valid_from <= quota_at.at ORDER BY change.valid_from DESC LIMIT 1
        ) AS joined
        CROSS JOIN LATERAL (
            SELECT change.quota FROM public.plan_quota_change AS change
            WHERE change.plan = joined.plan AND change.period = quota_at.period AND change.valid_from <= quota_at.at
            ORDER BY change.valid_from DESC LIMIT 1
        ) AS of_plan
    ) AS planned ON own.ended IS DISTINCT FROM false
$$;

-- The same of everybody who has one, for many at once. Of few users `quota_at` is quicker.
CREATE FUNCTION ledger.quotas_at(period text, at timestamptz) RETURNS TABLE (id text, source text, quota bigint)
LANGUAGE sql STABLE AS $$
    SELECT id, CASE WHEN NOT own.ended THEN 'own' ELSE 'plan' END,
        CASE WHEN NOT own.ended THEN own.quota ELSE planned.quota END
    FROM (
        SELECT DISTINCT ON (change.id) change.id, change.quota, change.ended FROM public.user_quota_change AS change
        WHERE change.period = quotas_at.period AND change.valid_from <= quotas_at.at
        ORDER BY change.id, change.valid_from DESC
    ) AS own
    FULL JOIN (
        SELECT joined.id, joined.plan, of_plan.quota
        FROM (
            SELECT DISTINCT ON (change.id) change.id, change.plan FROM public.user_plan_change AS change
            WHERE change.valid_from <= quotas_at.at ORDER BY change.id, change.valid_from DESC
        ) AS joined
        JOIN (
            SELECT DISTINCT ON (change.plan) change.plan, change.quota FROM public.plan_quota_change AS change
            WHERE change.period = quotas_at.period AND change.valid_from <= quotas_at.at
            ORDER BY change.plan, change.valid_from DESC
        ) AS of_plan USING (plan)
    ) AS planned USING (id)
    WHERE NOT own.ended OR planned.plan IS NOT NULL
$$;

-- Whose quota may be another one after the first instant and until the second: all of those whose is, and perhaps others.
CREATE FUNCTION ledger.quotas_changed(period text, after timestamptz, until timestamptz) RETURNS TABLE (id text)
LANGUAGE sql STABLE AS $$
    SELECT change.id FROM public.user_quota_change AS change
    WHERE change.period = quotas_changed.period AND change.valid_from > quotas_changed.after
        AND change.valid_from <= quotas_changed.until
    UNION
    SELECT change.id FROM public.user_plan_change AS change
    WHERE change.valid_from > quotas_changed.after AND change.valid_from <= quotas_changed.until
    UNION
    SELECT change.id FROM public.user_plan_change AS change WHERE change.plan IN (
        SELECT of_plan.plan FROM public.plan_quota_change AS of_plan
        WHERE of_plan.period = quotas_changed.period AND of_plan.valid_from > quotas_changed.after
            AND of_plan.valid_from <= quotas_changed.until)
$$;

-- Everybody with the hourly quota of now, and whether it has been the same since an instant: else `quota_at` has to be
-- asked.
-- Quick for a million users, in plans or not: the history is read only as far as something changed.
CREATE FUNCTION ledger.users_since(since timestamptz)
RETURNS TABLE (id text, name text, email text, quota bigint, settled boolean) LANGUAGE sql STABLE AS $$
    SELECT id, users.name, users.email,
        CASE WHEN users.quota IS NOT NULL OR users.plan IS NULL THEN users.quota ELSE of_plan.quota END,
        later.id IS NULL AND (users.quota IS NOT NULL OR users.plan IS NULL OR unlimited.id IS NULL)
    FROM public.user_metadata AS users
    LEFT JOIN ledger.quotas_changed('hour', users_since.since, 'infinity') AS later USING (id)
    -- In a plan and without a quota: perhaps unlimited.
    LEFT JOIN (
        SELECT DISTINCT change.id FROM public.user_quota_change AS change
        WHERE change.period = 'hour' AND change.quota IS NULL AND NOT change.ended
    ) AS unlimited USING (id)
    LEFT JOIN (
        SELECT DISTINCT ON (change.plan) change.plan, change.quota FROM public.plan_quota_change AS change
        WHERE change.period = 'hour' ORDER BY change.plan, change.valid_from DESC
    ) AS of_plan ON of_plan.plan = users.plan
$$;

-- The last instant of an hour, whose quota the hour is judged by.
CREATE FUNCTION ledger.last_instant(hour timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT last_instant.hour + interval '3599.999999 seconds'
$$;

-- PostgreSQL also takes abbreviations and rules such as 'foo+3' for zones, in any capitals: only the names themselves are
-- meant, without those that depend on the server.
CREATE FUNCTION ledger.is_zone(zone text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM pg_timezone_names WHERE name = is_zone.zone AND name NOT IN ('localtime', 'posixrules', 'Factory')
            AND name NOT LIKE 'posix/%' AND name NOT LIKE 'right/%')
$$;

-- Users who came after hours were published: there they are unknown. The sensor looks for those hours and has them published
-- again: for all who had arrived at an instant, in the order of the publications, which are searched up to a number.
CREATE TABLE ledger.newcomer (
    id text PRIMARY KEY,
    arrived_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX newcomer_by_time ON ledger.newcomer (arrived_at);
CREATE TABLE ledger.newcomer_search (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    arrived_until timestamptz NOT NULL DEFAULT '-infinity',
    publication bigint NOT NULL DEFAULT 0
);
INSERT INTO ledger.newcomer_search DEFAULT VALUES;
-- Few publications have unknown users. Those of before it was recorded may have some.
CREATE INDEX publication_with_unknown_users ON ledger.publication (number)
WHERE asset = 'bytes_agg_user_1h' AND content -> 'unknown_users' ->> 'users' IS DISTINCT FROM '0';

CREATE FUNCTION ledger.require_zones(zones text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wrong text := (SELECT min(zone) FROM (SELECT DISTINCT zone FROM unnest(zones) AS zone) AS one
        WHERE NOT ledger.is_zone(zone));
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE check_violation USING MESSAGE = format(
            'expected the IANA name of a time zone such as Asia/Kathmandu, found %L; pg_timezone_names lists them', wrong);
    END IF;
END $$;

-- Whoever is new has the quota and the plan from the beginning on: hours of before, in which it was unknown, are judged by
-- them. Whoever is back has them from now on.
CREATE FUNCTION ledger.begin_quotas(ids text[]) RETURNS void LANGUAGE plpgsql AS $$
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
    WHERE EXISTS (SELECT FROM ledger.publication_head WHERE asset = 'bytes_agg_user_1h')
    ON CONFLICT (id) DO UPDATE SET arrived_at = excluded.arrived_at;
END $$;

-- Whoever is gone has none, and keeps its history: old hours are judged by it.
CREATE FUNCTION ledger.end_quotas(ids text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
BEGIN
    INSERT INTO public.user_quota_change (id, period, valid_from, ended)
    SELECT gone.id, of.period, at, true
    FROM unnest(ids) AS gone (id) CROSS JOIN (VALUES ('hour'), ('day'), ('month')) AS of (period)
    WHERE (SELECT NOT change.ended FROM public.user_quota_change AS change
        WHERE change.id = gone.id AND change.period = of.period ORDER BY change.valid_from DESC LIMIT 1);

    INSERT INTO public.user_plan_change (id, valid_from)
    SELECT gone.id, at FROM unnest(ids) AS gone (id)
    WHERE (SELECT change.plan FROM public.user_plan_change AS change
        WHERE change.id = gone.id ORDER BY change.valid_from DESC LIMIT 1) IS NOT NULL;
END $$;

-- `users_changed` comes before these by its name, and locks the users' version: changes are in the order of their commits.
CREATE FUNCTION ledger.users_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.require_zones((SELECT array_agg(DISTINCT zone) FROM added WHERE zone IS NOT NULL));
    PERFORM ledger.begin_quotas((SELECT array_agg(id) FROM added));
    RETURN NULL;
END $$;

CREATE FUNCTION ledger.users_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.end_quotas((SELECT array_agg(id) FROM removed));
    RETURN NULL;
END $$;

CREATE FUNCTION ledger.users_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.end_quotas(array(
        SELECT id FROM public.user_quota_change UNION SELECT id FROM public.user_plan_change));
    RETURN NULL;
END $$;

CREATE FUNCTION ledger.users_updated() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz;
BEGIN
    -- The change was written into the history first, see below.
    IF current_setting('antenna.history_leads', true) = 'on' THEN
        RETURN NULL;
    END IF;
    PERFORM ledger.require_zones((
        SELECT array_agg(DISTINCT after.zone) FROM after LEFT JOIN before USING (id)
        WHERE after.zone IS NOT NULL AND after.zone IS DISTINCT FROM before.zone));
    -- An id that changed is another user.
    PERFORM ledger.end_quotas((
        SELECT array_agg(id) FROM before WHERE NOT EXISTS (SELECT FROM after WHERE after.id = before.id)));
    PERFORM ledger.begin_quotas((
        SELECT array_agg(id) FROM after WHERE NOT EXISTS (SELECT FROM before WHERE before.id = after.id)));

    at := clock_timestamp();
    INSERT INTO public.user_quota_change (id, period, valid_from, quota, ended)
    SELECT id, 'hour', at, after.quota, change.ended
    FROM before JOIN after USING (id)
    -- Who is moved into a plan and left without a quota of its own has that of the plan.
    CROSS JOIN LATERAL (
        SELECT after.quota IS NULL AND after.plan IS NOT NULL AND after.plan IS DISTINCT FROM before.plan
    ) AS change (ended)
    LEFT JOIN LATERAL (
        SELECT own.quota, own.ended FROM public.user_quota_change AS own
        WHERE own.id = after.id AND own.period = 'hour' ORDER BY own.valid_from DESC LIMIT 1
    ) AS newest ON true
    WHERE before.quota IS DISTINCT FROM after.quota
        AND (newest.ended IS NULL OR newest.quota IS DISTINCT FROM after.quota OR newest.ended < change.ended);

    INSERT INTO public.user_plan_change (id, valid_from, plan)
    SELECT id, at, after.plan FROM before JOIN after USING (id)
    WHERE before.plan IS DISTINCT FROM after.plan AND after.plan IS DISTINCT FROM (
        SELECT change.plan FROM public.user_plan_change AS change
        WHERE change.id = after.id ORDER BY change.valid_from DESC LIMIT 1);
    RETURN NULL;
END $$;

CREATE TRIGGER users_quotas_added AFTER INSERT ON user_metadata REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.users_added();
CREATE TRIGGER users_quotas_updated AFTER UPDATE ON user_metadata REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.users_updated();
CREATE TRIGGER users_quotas_removed AFTER DELETE ON user_metadata REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.users_removed();
CREATE TRIGGER users_quotas_truncated AFTER TRUNCATE ON user_metadata
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.users_truncated();

-- The other way: `user_metadata` follows a change that is written into the history.
CREATE FUNCTION ledger.quota_follows_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM changed WHERE period = 'hour') THEN
        PERFORM set_config('antenna.history_leads', 'on', true);
        UPDATE public.user_metadata AS users SET quota = newest.quota
        FROM (SELECT DISTINCT id FROM changed WHERE period = 'hour') AS of
        CROSS JOIN LATERAL (
            SELECT own.quota FROM public.user_quota_change AS own
            WHERE own.id = of.id AND own.period = 'hour' ORDER BY own.valid_from DESC LIMIT 1
        ) AS newest
        WHERE users.id = of.id AND users.quota IS DISTINCT FROM newest.quota;
        PERFORM set_config('antenna.history_leads', 'off', true);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER quota_added AFTER INSERT ON user_quota_change REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.quota_follows_history();
CREATE TRIGGER quota_corrected AFTER UPDATE ON user_quota_change REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.quota_follows_history();

CREATE FUNCTION ledger.plan_follows_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('antenna.history_leads', 'on', true);
    UPDATE public.user_metadata AS users SET plan = newest.plan
    FROM (SELECT DISTINCT id FROM changed) AS of
    CROSS JOIN LATERAL (
        SELECT change.plan FROM public.user_plan_change AS change
        WHERE change.id = of.id ORDER BY change.valid_from DESC LIMIT 1
    ) AS newest
    WHERE users.id = of.id AND users.plan IS DISTINCT FROM newest.plan;
    PERFORM set_config('antenna.history_leads', 'off', true);
    RETURN NULL;
END $$;
CREATE TRIGGER plan_added AFTER INSERT ON user_plan_change REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.plan_follows_history();
CREATE TRIGGER plan_corrected AFTER UPDATE ON user_plan_change REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.plan_follows_history();

-- What the triggers above write is of a version already.
CREATE TRIGGER a_users_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plan
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.users_changed();
CREATE TRIGGER a_users_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plan_quota_change
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.users_changed();
CREATE TRIGGER a_users_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON user_quota_change
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.users_changed();
CREATE TRIGGER a_users_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON user_plan_change
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.users_changed();

-- As before, where the quota of today may be that of a plan. Who was over is as it was published, with the quota of then.
CREATE OR REPLACE VIEW usage_against_quota AS
SELECT hour, id, name, bytes, quota, 100::numeric * bytes / nullif(quota, 0)::float8 AS percent, quota - bytes AS remaining,
    over_quota
FROM (
    SELECT side.hour, used.id, users.name, used.sum_user_bytes AS bytes, over.id IS NOT NULL AS over_quota,
        CASE
            WHEN over.id IS NOT NULL THEN over.quota
            WHEN users.quota IS NOT NULL OR of_plan.plan IS NULL THEN users.quota
            -- An own change that has not ended: unlimited.
            WHEN (SELECT own.ended FROM user_quota_change AS own WHERE own.id = users.id AND own.period = 'hour'
                ORDER BY own.valid_from DESC LIMIT 1) IS DISTINCT FROM false THEN of_plan.quota
        END AS quota
    FROM ledger.quota_hour AS side
    JOIN bytes_agg_user_1h AS used ON used.date = side.hour
    JOIN user_metadata AS users ON users.id = used.id
    LEFT JOIN users_over_quota_1h AS over ON over.date = side.hour AND over.id = used.id
    LEFT JOIN (
        SELECT DISTINCT ON (plan) plan, quota FROM plan_quota_change WHERE period = 'hour' ORDER BY plan, valid_from DESC
    ) AS of_plan ON of_plan.plan = users.plan
) AS side_by_side;

GRANT SELECT ON plan, plan_quota_change, user_quota_change, user_plan_change, quota_history
    TO antenna_publisher, antenna_administrator;
-- UPDATE and DELETE of users' changes: for corrections of the past, and for whoever forgets a user.
GRANT INSERT ON plan, plan_quota_change, user_quota_change, user_plan_change TO antenna_administrator;
GRANT UPDATE, DELETE ON user_quota_change, user_plan_change TO antenna_administrator;
GRANT UPDATE (quota) ON plan_quota_change TO antenna_administrator;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.newcomer TO antenna_administrator;
GRANT SELECT, DELETE ON ledger.newcomer TO antenna_publisher;
GRANT SELECT, UPDATE ON ledger.newcomer_search TO antenna_publisher;
GRANT SELECT ON ledger.newcomer_search TO antenna_administrator;
-- Hours whose users or quotas of then have changed are asked for again.
GRANT UPDATE (asked_users_version) ON ledger.publication_head TO antenna_administrator;
