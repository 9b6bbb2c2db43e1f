"""How far a topic is read: what the ledger says of the partitions that were read, and Kafka of the others."""

import psycopg

from antenna_assets.ledger import committed_offsets
from antenna_assets.streaming.broker import Broker, Topic
from antenna_assets.streaming.head import ledger_id
from antenna_assets.streaming.starts import read_starts


def next_to_read(connection: psycopg.Connection, broker: Broker, topic: Topic) -> dict[int, int]:
    """The offset to read next, of every partition: one that was never read begins where its start was noted.

    Raises:
        BrokerError: Kafka does not answer.
    """
    topic_id = ledger_id(connection, topic.name, topic.id)
    starts = {start.partition: start.start_offset for start in read_starts(connection, topic_id).values()}
    return broker.earliest(topic) | starts | committed_offsets(connection, topic_id, topic.partitions)
