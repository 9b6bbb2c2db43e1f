"""`antenna accept-loss`: the recorded way on after Kafka itself lost messages that were never read.

It changes the ledger alone, in one transaction, while no stream runs. What a stream refuses and why is in `job.py`.
"""

from dataclasses import dataclass

import psycopg

from antenna_assets.clock import database_now
from antenna_assets.ledger import committed_offsets
from antenna_assets.streaming.broker import Broker
from antenna_assets.streaming.errors import StreamError
from antenna_assets.streaming.head import Head, read_head
from antenna_assets.streaming.lock import require_only_stream


@dataclass(frozen=True)
class Loss:
    """Messages that Kafka no longer has. `until_offset` is None for those of a topic that is gone as a whole."""

    topic_id: str
    partition: int
    from_offset: int
    until_offset: int | None

    def __str__(self) -> str:
        if self.until_offset is None:
            return (
                f"partition {self.partition} of topic id {self.topic_id}: whatever came after offset "
                f"{self.from_offset - 1}, as the topic was deleted"
            )
        count = self.until_offset - self.from_offset
        return f"partition {self.partition}: {count:,} messages, offsets {self.from_offset} to {self.until_offset - 1}"


def losses(connection: psycopg.Connection, broker: Broker) -> list[Loss]:
    """What Kafka lost before it was read, by partition.

    Raises:
        StreamError: Kafka ends before the ledger does under the same topic id: its offsets come again as other messages.
        LedgerError: the ledger knows no such topic.
    """
    topic = broker.describe()
    head = read_head(connection, topic.name)
    if head.topic_id != topic.id:
        ends = connection.execute(
            "SELECT partition, max(until_offset) FROM ledger.batch_offset WHERE topic_id = %s"
            " GROUP BY partition ORDER BY partition",
            [head.topic_id],
        ).fetchall()
        # A topic that was never read has lost nothing that the ledger could name, but its id.
        return [Loss(head.topic_id, partition, end, None) for partition, end in ends or [(0, 0)]]
    committed = committed_offsets(connection, topic.id, topic.partitions)
    following = broker.next_offsets(topic)
    for partition, offset in committed.items():
        if following[partition] < offset:
            raise StreamError(
                f"partition {partition} of {topic.name}: the ledger ends at offset {offset}, but Kafka ends at "
                f"{following[partition]}: the offsets between come again as other messages, which no record can mend; "
                "create the topic anew, then accept the loss"
            )
    first = broker.earliest(topic)
    return [
        Loss(topic.id, partition, offset, first[partition])
        for partition, offset in sorted(committed.items())
        if first[partition] > offset
    ]


def accept(connection: psycopg.Connection, broker: Broker, reason: str) -> list[Loss]:
    """Record what was lost, so that the stream goes on at Kafka's first message; returns it.

    Raises:
        StreamRunning: a stream runs on this ledger.
        StreamError, LedgerError: as `losses`.
    """
    require_only_stream(connection)
    with connection.transaction():
        head = read_head(connection, broker.topic, lock=True)
        found = losses(connection, broker)
        if found:
            _record(connection, head, found, broker.describe().id, reason)
    return found


def _record(
    connection: psycopg.Connection, head: Head, found: list[Loss], topic_id: str, reason: str
) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.accepted_loss (topic, topic_id, partition, from_offset, until_offset, reason)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [(head.topic, x.topic_id, x.partition, x.from_offset, x.until_offset, reason) for x in found],
        )
    if head.topic_id != topic_id:
        # The partitions of the new topic are others: the old ones' times must not hold the watermark back.
        connection.execute(
            "UPDATE ledger.head SET topic_id = %s, event_times = '{}', silent_since = '{}', mark = '{}', mark_at = NULL"
            " WHERE topic = %s",
            [topic_id, head.topic],
        )
        return
    number = head.batch + 1
    connection.execute(
        "INSERT INTO ledger.batch (batch, kind, clock, rows, bytes, quarantined, late_rows, low_watermark)"
        " VALUES (%s, 'loss', %s, 0, 0, 0, 0, %s)",
        [number, database_now(connection), head.low_watermark],
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.batch_offset (topic, topic_id, partition, from_offset, until_offset, batch)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [(head.topic, x.topic_id, x.partition, x.from_offset, x.until_offset, number) for x in found],
        )
    connection.execute("UPDATE ledger.head SET batch = %s WHERE topic = %s", [number, head.topic])
