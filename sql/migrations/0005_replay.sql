-- Replays: rejected messages that were read again, accepted, and so left the quarantine.

-- One row per batch of kind 'replay'. `transform` is the Python text that each message went through, null for none.
CREATE TABLE ledger.replay (
    batch bigint PRIMARY KEY REFERENCES ledger.batch,
    transform text
);

-- The key is where the message came from, so a message is replayed once, whatever is tried again or at the same time.
CREATE TABLE ledger.replayed (
    topic_id text NOT NULL,
    partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    -- What it had been rejected for.
    reason text NOT NULL,
    batch bigint NOT NULL REFERENCES ledger.replay,
    PRIMARY KEY (topic_id, partition, kafka_offset)
);
CREATE INDEX replayed_by_reason ON ledger.replayed (reason);
CREATE INDEX replayed_by_batch ON ledger.replayed (batch);
