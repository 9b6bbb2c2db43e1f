-- Where the stream begins to read a partition: noted when it first sees it, so that what Kafka drops from then on is missed.
CREATE TABLE ledger.partition_start (
    topic text NOT NULL REFERENCES ledger.head,
    topic_id text NOT NULL,
    partition integer NOT NULL,
    -- Kafka's first offset at that time: the messages before it were gone already.
    first_offset bigint NOT NULL CHECK (first_offset >= 0),
    start_offset bigint NOT NULL CHECK (start_offset >= 0),
    -- What `antenna stream --from` was told; null: begin at the first message.
    asked text,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic_id, partition)
);

INSERT INTO ledger.partition_start (topic, topic_id, partition, first_offset, start_offset)
SELECT topic, topic_id, partition, min(from_offset), min(from_offset)
FROM ledger.batch_offset GROUP BY topic, topic_id, partition;

GRANT SELECT ON ledger.partition_start TO antenna_stream, antenna_publisher, antenna_administrator;
GRANT INSERT, UPDATE ON ledger.partition_start TO antenna_stream;
GRANT INSERT ON ledger.partition_start TO antenna_administrator;
