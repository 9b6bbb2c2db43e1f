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

-- Closed hours that are not wholly published, and what is known of their failures. `again`: the hour was published, and what
-- is missing are rows that came since.
CREATE VIEW ledger.hour_to_publish AS
SELECT state.hour, state.rows, state.generation, state.up_to_batch, coalesce(failing.attempts, 0) AS attempts,
    failing.batch AS tried_batch, failing.ended, failing.next_attempt,
    state.dirty AND state.certified AND failing.hour IS NULL AS again
FROM ledger.hour_state AS state LEFT JOIN ledger.failing_hour AS failing USING (hour)
WHERE state.closed_at IS NOT NULL AND NOT state.published;

-- When the first rows of an hour came that are beyond a batch.
CREATE FUNCTION ledger.rows_since(of_hour timestamptz, up_to_batch bigint) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT committed_at FROM ledger.batch
    WHERE batch = (SELECT min(batch) FROM ledger.file WHERE hour = of_hour AND batch > up_to_batch)
$$;

-- Where the hourly partitions begin unless ANTENNA_START says otherwise, as the first `antenna up` wrote it down.
CREATE TABLE ledger.first_partition (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    hour timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT ON ledger.request, ledger.left_out_hour, ledger.hour_to_publish, ledger.first_partition
    TO antenna_stream, antenna_publisher, antenna_administrator;
GRANT INSERT, DELETE ON ledger.request TO antenna_publisher;
GRANT INSERT, UPDATE, DELETE ON ledger.left_out_hour TO antenna_publisher;
GRANT UPDATE ON ledger.failing_hour TO antenna_publisher;
