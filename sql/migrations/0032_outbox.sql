-- Notices and their deliveries. A notice is written in the transaction that makes it true; `antenna alerts deliver` sends it
-- later, from another process.

-- Where notices are sent. `antenna alerts deliver` records its channels here when it starts; a channel gets what is written
-- from then on. Null levels or kinds: all. After a Retry-After nothing is sent to it until `paused_until`.
CREATE TABLE alert_channel (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,39}$'),
    kind text NOT NULL CHECK (kind IN ('webhook', 'smtp', 'log')),
    levels text[],
    kinds text[],
    added_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    removed_at timestamptz,
    paused_until timestamptz
);

-- Append-only, but for forgetting and retention. `id` is the idempotency key that receivers see at each attempt; it is sent
-- as a header and in a Message-ID. `body` is JSON, as text so that its bytes stay those that are signed. `user_id` is set if
-- id or body name a user. Null `only_channel`: for all channels of its level and kind.
CREATE TABLE outbox (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE CHECK (id ~ '^[A-Za-z0-9_-]{1,100}$'),
    kind text NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_.]{0,59}$'),
    level text NOT NULL CHECK (level IN ('info', 'warning', 'critical')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    body text NOT NULL CHECK (octet_length(body) <= 65536 AND json_typeof(body::json) = 'object'),
    user_id text,
    only_channel text
);
CREATE INDEX outbox_user_id ON outbox (user_id) WHERE user_id IS NOT NULL;

CREATE FUNCTION ledger.notices_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a notice is never changed: it may have been sent; write another one';
END
$$;
CREATE TRIGGER notices_stay BEFORE UPDATE OR TRUNCATE ON outbox FOR EACH STATEMENT EXECUTE FUNCTION ledger.notices_stay();

-- What is owed to a channel, and what became of it. `status_code` is that of the last answer, in HTTP or SMTP; `last_error`
-- holds no secret, no address of a person and nothing of the body.
CREATE TABLE delivery (
    outbox bigint NOT NULL REFERENCES outbox (number) ON DELETE CASCADE,
    channel text NOT NULL REFERENCES alert_channel (name),
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    first_attempt timestamptz,
    next_attempt timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error text CHECK (length(last_error) <= 300),
    status_code integer,
    delivered_at timestamptz,
    PRIMARY KEY (outbox, channel),
    CHECK ((state = 'delivered') = (delivered_at IS NOT NULL))
);
CREATE INDEX delivery_due ON delivery (channel, next_attempt, outbox) WHERE state = 'waiting';
CREATE INDEX delivery_open ON delivery (channel, state, outbox) WHERE state <> 'delivered';

-- In the transaction of the notice. A reader that looks for numbers above the last one that it saw would miss a notice whose
-- transaction took longer than that of a later number. Whoever writes notices needs no right on deliveries.
CREATE FUNCTION ledger.owe_notices() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO public.delivery (outbox, channel)
    SELECT number, name FROM added JOIN public.alert_channel AS channel ON removed_at IS NULL
        AND CASE WHEN only_channel IS NULL
            THEN (levels IS NULL OR level = ANY(levels)) AND (kinds IS NULL OR added.kind = ANY(kinds))
            ELSE only_channel = name END;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION ledger.owe_notices FROM PUBLIC;
CREATE TRIGGER owe_notices AFTER INSERT ON outbox REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.owe_notices();

-- For dashboards and metrics: no id, body or user.
CREATE VIEW deliveries AS
SELECT number, outbox.kind, level, created_at, channel, alert_channel.removed_at IS NULL AS channel_in_use, state, attempts,
    CASE state WHEN 'waiting' THEN greatest(next_attempt, paused_until) END AS next_attempt, last_error, status_code,
    delivered_at
FROM delivery JOIN outbox ON number = outbox JOIN alert_channel ON name = channel;

-- As the others it cannot log in; it may be there already, made for an owner who may make none.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'antenna_alerts') THEN
        CREATE ROLE antenna_alerts NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
GRANT USAGE ON SCHEMA public TO antenna_alerts;
GRANT SELECT ON schema_migration, outbox, delivery, alert_channel TO antenna_alerts;
GRANT UPDATE ON delivery, alert_channel TO antenna_alerts;
GRANT INSERT ON alert_channel TO antenna_alerts;

-- Tests of a channel, retries and retention.
GRANT SELECT, INSERT, DELETE ON outbox TO antenna_administrator;
GRANT SELECT, UPDATE ON delivery TO antenna_administrator;
GRANT SELECT, UPDATE (paused_until) ON alert_channel TO antenna_administrator;
GRANT SELECT ON deliveries TO antenna_administrator, antenna_dashboards, antenna_metrics;
GRANT SELECT ON alert_channel TO antenna_metrics;
