-- What the sensor asked for and what became of it is known here, and not only by Dagster, whose runs are deleted, pruned, or
-- restored from another backup.

-- Requests whose runs have not all ended, as far as the sensor knows. A key is given once and never again. `batch` is the
-- newest one that the request is for, `certificate` the newest one of all when it was made: an hour with a later one was
-- published since.
CREATE TABLE ledger.request (
    key text PRIMARY KEY,
    first_hour timestamptz NOT NULL,
    last_hour timestamptz NOT NULL,
    batch bigint NOT NULL,
    certificate bigint NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (first_hour <= last_hour)
);

-- A failing hour stays so until it is published: until it has a later certificate than the newest of all when its last run
-- had failed, or nothing is left to publish. Null where an older program noted it.
ALTER TABLE ledger.failing_hour ADD COLUMN certificate bigint;

-- Closed hours that are not published and cannot be asked for, since Dagster knows no such partition. Ticks replace the rows.
CREATE TABLE ledger.left_out_hour (
    hour timestamptz PRIMARY KEY REFERENCES ledger.hour ON DELETE CASCADE,
    reason text NOT NULL CHECK (reason IN ('before the first partition', 'in the future')),
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT ON ledger.request, ledger.left_out_hour TO antenna_stream, antenna_publisher, antenna_administrator;
GRANT INSERT, DELETE ON ledger.request TO antenna_publisher;
GRANT INSERT, UPDATE, DELETE ON ledger.left_out_hour TO antenna_publisher;
GRANT UPDATE ON ledger.failing_hour TO antenna_publisher;
