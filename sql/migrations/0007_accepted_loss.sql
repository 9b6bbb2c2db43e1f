-- What Kafka itself lost before it was read, and a person has accepted: the recorded way on of `antenna accept-loss`.
CREATE TABLE ledger.accepted_loss (
    topic text NOT NULL REFERENCES ledger.head,
    topic_id text NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    -- Null: how many messages a deleted topic held beyond the ledger's end, nobody knows any more.
    until_offset bigint CHECK (until_offset > from_offset),
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason text NOT NULL,
    PRIMARY KEY (topic_id, partition, from_offset)
);

-- A loss is a batch without rows: its offset ranges keep those of the partition contiguous.
ALTER TABLE ledger.batch DROP CONSTRAINT batch_kind_check;
ALTER TABLE ledger.batch ADD CONSTRAINT batch_kind_check CHECK (kind IN ('stream', 'replay', 'loss'));
