"""How far a topic is read: the ledger's offsets compared with Kafka's."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import psycopg

from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.domain.closing_rule import Backlog
from antenna_assets.domain.hours import HOUR
from antenna_assets.ledger.head import ledger_id
from antenna_assets.ledger.offsets import committed_offsets
from antenna_assets.ledger.partition_starts import read_starts


def next_to_read(connection: psycopg.Connection, broker: Broker, topic: Topic) -> dict[int, int]:
    """Like `offsets_to_read`, for a topic with Kafka's id.

    Raises:
        BrokerError: Kafka does not answer.
    """
    return offsets_to_read(connection, broker, replace(topic, id=ledger_id(connection, topic.name, topic.id)))


def offsets_to_read(connection: psycopg.Connection, broker: Broker, topic: Topic) -> dict[int, int]:
    """The next offset to read of every partition.

    A partition that was never read begins at its recorded start; Kafka is asked only for the first offset of
    one that has none.

    Args:
        topic: with the ledger's id.

    Raises:
        BrokerError: Kafka does not answer.
    """
    starts = {start.partition: start.start_offset for start in read_starts(connection, topic.id).values()}
    known = starts | committed_offsets(connection, topic.id, topic.partitions)
    return known if known.keys() >= set(topic.partitions) else broker.earliest(topic) | known


def backlog_of(broker: Broker, topic: Topic, done: Mapping[int, int]) -> dict[int, Backlog]:
    """The backlog of each partition that is not read out.

    Args:
        done: the next offset to read of each partition.

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
    """The end of the newest hour that is fully read by Kafka's record times; None if no hour is.

    Args:
        hours: ended hours, ascending.

    Raises:
        BrokerError: Kafka does not answer.
    """

    def is_left(hour: datetime) -> bool:
        first = broker.first_at(topic, hour + HOUR)
        return any((at := first[p]) is None or one.offset < at for p, one in left.items())

    count = bisect_left(hours, True, key=is_left)
    return hours[count - 1] + HOUR if count else None
