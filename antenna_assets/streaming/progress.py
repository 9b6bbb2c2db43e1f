"""How far a topic is read: what the ledger says of the partitions that were read, and Kafka of the others."""

import psycopg

from antenna_assets.ledger import committed_offsets
from antenna_assets.streaming.broker import Broker, Topic


def next_to_read(connection: psycopg.Connection, broker: Broker, topic: Topic) -> dict[int, int]:
    """The offset to read next, of every partition: one that was never read begins at Kafka's first message.

    Raises:
        BrokerError: Kafka does not answer.
    """
    return broker.earliest(topic) | committed_offsets(connection, topic.id, topic.partitions)
