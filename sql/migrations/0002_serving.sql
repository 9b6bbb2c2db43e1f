-- The tables that people and dashboards read. `date` is the window's first instant.

CREATE TABLE user_metadata (
    id text PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    quota bigint NOT NULL CHECK (quota >= 0)
);

-- The version of user_metadata grows with every statement that changes it, so that a published number can name
-- the users it was computed with.
CREATE TABLE ledger.users_version (
    version bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO ledger.users_version (version) VALUES (0);

CREATE FUNCTION ledger.users_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger.users_version SET version = version + 1, changed_at = clock_timestamp();
    RETURN NULL;
END
$$;
CREATE TRIGGER users_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON user_metadata
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.users_changed();

-- Live, 5-minute windows. Every batch updates the newest windows: room on the page keeps those updates in place.
CREATE TABLE bytes_agg_antenna (
    date timestamptz NOT NULL,
    antenna_id text NOT NULL,
    sum_antenna_bytes bigint NOT NULL,
    PRIMARY KEY (date, antenna_id)
) WITH (fillfactor = 80);

CREATE TABLE bytes_agg_user (
    date timestamptz NOT NULL,
    id text NOT NULL,
    sum_user_bytes bigint NOT NULL,
    PRIMARY KEY (date, id)
) WITH (fillfactor = 80);

CREATE TABLE bytes_agg_app (
    date timestamptz NOT NULL,
    app text NOT NULL,
    sum_app_bytes bigint NOT NULL,
    PRIMARY KEY (date, app)
) WITH (fillfactor = 80);

-- Hourly facts, replaced an hour at a time.
CREATE TABLE bytes_agg_antenna_1h (
    date timestamptz NOT NULL,
    antenna_id text NOT NULL,
    sum_antenna_bytes bigint NOT NULL,
    PRIMARY KEY (date, antenna_id)
);

CREATE TABLE bytes_agg_user_1h (
    date timestamptz NOT NULL,
    id text NOT NULL,
    email text,
    sum_user_bytes bigint NOT NULL,
    PRIMARY KEY (date, id)
);

CREATE TABLE bytes_agg_app_1h (
    date timestamptz NOT NULL,
    app text NOT NULL,
    sum_app_bytes bigint NOT NULL,
    PRIMARY KEY (date, app)
);

CREATE TABLE users_over_quota_1h (
    date timestamptz NOT NULL,
    id text NOT NULL,
    email text NOT NULL,
    quota bigint NOT NULL,
    sum_user_bytes bigint NOT NULL,
    PRIMARY KEY (date, id)
);
