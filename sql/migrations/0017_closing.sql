-- When an hour closes: what the stream remembers between two looks at Kafka, what holds closing, and the repair after a
-- wrong clock. All instants are PostgreSQL's.
ALTER TABLE ledger.hour DROP CONSTRAINT hour_closed_by_check;
ALTER TABLE ledger.hour ADD CONSTRAINT hour_closed_by_check CHECK (closed_by IN ('watermark', 'quiet', 'clock'));

-- When the hour last got a row. An open hour of a ledger that is upgraded counts as if it had got one just now.
ALTER TABLE ledger.hour ADD COLUMN row_at timestamptz;
UPDATE ledger.hour SET row_at = clock_timestamp() WHERE closed_at IS NULL;

ALTER TABLE ledger.head
    -- The newest look at Kafka, and since when looks follow each other without a gap: silence is counted from there.
    ADD COLUMN looked_at timestamptz,
    ADD COLUMN watched_since timestamptz,
    -- Since when each partition that is not read out has delivered no accepted event, {"0": "2026-11-22T11:00:01+00:00"}.
    ADD COLUMN silent_since jsonb NOT NULL DEFAULT '{}',
    -- What Kafka held at `mark_at` ends before these offsets, {"0": 1200}; it is read when all of them are reached. What it
    -- held at `read_past` is.
    ADD COLUMN mark jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN mark_at timestamptz,
    ADD COLUMN read_past timestamptz,
    -- Set while an hour that has ended is kept open.
    ADD COLUMN held_by text,
    ADD COLUMN held_since timestamptz,
    ADD CHECK ((held_by IS NULL) = (held_since IS NULL)),
    -- A sentence on the stream's host, if its own clock is wrong.
    ADD COLUMN host_clock text;

-- The recorded repair of `antenna reopen`.
CREATE TABLE ledger.reopening (
    reopened_at timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
    from_hour timestamptz NOT NULL,
    watermark_before timestamptz,
    -- Closed hours that are open again, and hours without rows that the ledger does not know any more.
    hours_reopened integer NOT NULL,
    hours_removed integer NOT NULL,
    reason text NOT NULL
);
GRANT SELECT ON ledger.reopening TO antenna_stream, antenna_publisher, antenna_administrator;
GRANT INSERT ON ledger.reopening TO antenna_administrator;
GRANT DELETE ON ledger.hour, ledger.failing_hour TO antenna_administrator;

-- The oldest hour that is not closed, and what holds it open if it has ended, and for how long.
CREATE VIEW closing AS
SELECT oldest.hour, head.low_watermark, head.held_by, head.held_since,
    extract(epoch FROM now() - head.held_since)::float8 / 60 AS held_minutes, head.host_clock
FROM ledger.head CROSS JOIN LATERAL (
    SELECT date_trunc('hour', coalesce(head.low_watermark, head.first_hour), 'UTC') AS hour
) AS oldest;
GRANT SELECT ON closing TO antenna_dashboards, antenna_administrator;
