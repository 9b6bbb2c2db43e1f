"""How far a topic is read: what the ledger says of the partitions that were read, and Kafka of the others."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import datetime

import psycopg

from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.domain.closing_rule import Backlog
from antenna_assets.domain.hours import HOUR
from antenna_assets.ledger.head import ledger_id
from antenna_assets.ledger.offsets import committed_offsets
from antenna_assets.ledger.partition_starts import read_starts


def next_to_read(connection: psycopg.Connection, broker: Broker, topic: Topic) -> dict[int, int]:
    """The offset to read next, of every partition: one that was never read begins where its start was noted.

    Raises:
        BrokerError: Kafka does not answer.
    """
    topic_id = ledger_id(connection, topic.name, topic.id)
    starts = {start.partition: start.start_offset for start in read_starts(connection, topic_id).values()}
    return broker.earliest(topic) | starts | committed_offsets(connection, topic_id, topic.partitions)


def backlog_of(broker: Broker, topic: Topic, done: Mapping[int, int]) -> dict[int, Backlog]:
    """What is left in each partition that is not read out.

    Args:
        done: the offset to read next, of each partition.

    Raises:
        BrokerError: Kafka does not answer.
    """
    left = {partition: end for partition, end in broker.ends(topic).items() if done[partition] < end}
    if not left:
        return {}
    readable = broker.next_offsets(topic)
    return {partition: Backlog(done[partition], readable[partition], end) for partition, end in left.items()}


def read_past(
    broker: Broker, topic: Topic, left: Mapping[int, Backlog], hours: Sequence[datetime]
) -> datetime | None:
    """The end of the newest of the hours before whose end, by Kafka's own record times, nothing is left; None if all hold.

    A record of the future counts as one of now: no hour that has ended asks for more.

    Args:
        hours: ended ones, ascending.

    Raises:
        BrokerError: Kafka does not answer.
    """

    def is_left(hour: datetime) -> bool:
        first = broker.first_at(topic, hour + HOUR)
        return any((at := first[p]) is None or one.offset < at for p, one in left.items())

    count = bisect_left(hours, True, key=is_left)
    return hours[count - 1] + HOUR if count else None
