-- The ledger: what was read from Kafka, where it landed, what each hour is made of and what was published.
CREATE SCHEMA ledger;

-- Dagster keeps its runs, events and ticks here.
CREATE SCHEMA dagster;

-- One row per topic. Every batch locks it first, so batches are numbered in the order in which they commit.
CREATE TABLE ledger.head (
    topic text PRIMARY KEY,
    topic_id text NOT NULL,
    batch bigint NOT NULL DEFAULT 0,
    -- The largest accepted event time of each partition, {"0": "2026-11-22T10:59:59.5+00:00"}: what the watermark is made of.
    event_times jsonb NOT NULL DEFAULT '{}',
    low_watermark timestamptz,
    -- Quiet hours close from here on: the hour of the earliest event of the first batch that has one.
    first_hour timestamptz,
    heartbeat_at timestamptz
);

CREATE TABLE ledger.batch (
    batch bigint PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('stream', 'replay')),
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The wall clock that the batch's verdicts used.
    clock timestamptz NOT NULL,
    rows bigint NOT NULL CHECK (rows >= 0),
    bytes bigint NOT NULL CHECK (bytes >= 0),
    quarantined bigint NOT NULL CHECK (quarantined >= 0),
    late_rows bigint NOT NULL CHECK (late_rows >= 0),
    max_event_time timestamptz,
    low_watermark timestamptz
);

CREATE TABLE ledger.batch_offset (
    topic text NOT NULL REFERENCES ledger.head,
    topic_id text NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    until_offset bigint NOT NULL,
    batch bigint NOT NULL REFERENCES ledger.batch,
    PRIMARY KEY (topic_id, partition, from_offset),
    UNIQUE (topic_id, partition, until_offset),
    CHECK (from_offset < until_offset)
);

CREATE TABLE ledger.file (
    path text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('landed', 'rejected')),
    hour timestamptz,
    rows bigint NOT NULL CHECK (rows > 0),
    bytes bigint NOT NULL CHECK (bytes >= 0),
    size bigint NOT NULL CHECK (size > 0),
    batch bigint NOT NULL REFERENCES ledger.batch,
    CHECK ((kind = 'landed') = (hour IS NOT NULL))
);
CREATE INDEX file_of_hour ON ledger.file (hour, batch);
CREATE INDEX file_of_batch ON ledger.file (batch);

CREATE TABLE ledger.rejection (
    batch bigint NOT NULL REFERENCES ledger.batch,
    reason text NOT NULL,
    rows bigint NOT NULL CHECK (rows > 0),
    PRIMARY KEY (batch, reason)
);

-- An hour that has rows or is closed. `generation` is the newest sealed one, 0 before the first. Landed rows only
-- ever grow, so an hour is dirty when it has more rows than its newest generation.
CREATE TABLE ledger.hour (
    hour timestamptz PRIMARY KEY CHECK (hour = date_trunc('hour', hour, 'UTC')),
    rows bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    closed_at timestamptz,
    closed_by text CHECK (closed_by IN ('watermark', 'clock')),
    generation integer NOT NULL DEFAULT 0,
    CHECK ((closed_at IS NULL) = (closed_by IS NULL))
);
CREATE INDEX hour_open ON ledger.hour (hour) WHERE closed_at IS NULL;

CREATE TABLE ledger.hour_generation (
    hour timestamptz NOT NULL REFERENCES ledger.hour,
    generation integer NOT NULL CHECK (generation > 0),
    up_to_batch bigint NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (hour, generation)
);

CREATE TABLE ledger.publication (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asset text NOT NULL,
    hour timestamptz NOT NULL,
    generation integer NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    users_version bigint,
    run_id text NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (hour, generation) REFERENCES ledger.hour_generation
);
CREATE INDEX publication_of_hour ON ledger.publication (hour, asset);

CREATE TABLE ledger.publication_head (
    asset text NOT NULL,
    hour timestamptz NOT NULL,
    generation integer NOT NULL,
    PRIMARY KEY (asset, hour)
);
CREATE INDEX publication_head_of_hour ON ledger.publication_head (hour, asset, generation);
