"""`antenna accept-loss`: recording messages that Kafka lost unread, so that the stream can continue.

It changes only the ledger, in one transaction, while no stream runs.
"""

from dataclasses import dataclass

import psycopg

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.domain.counted import counted
from antenna_assets.errors import StreamError
from antenna_assets.ledger.head import Head, kafka_id, next_life, read_head
from antenna_assets.ledger.offsets import committed_offsets
from antenna_assets.ledger.partition_starts import WHERE_THE_LEDGER_ENDS, read_starts
from antenna_assets.ledger.progress import next_to_read
from antenna_assets.ledger.stream_lock import only_stream


@dataclass(frozen=True)
class Loss:
    """Messages that Kafka no longer has.

    Attributes:
        until_offset: None if their number is unknown.
        kafka_end: the end of the partition, if Kafka lost messages that were read; None if the topic was
            deleted.
    """

    topic_id: str
    partition: int
    from_offset: int
    until_offset: int | None
    kafka_end: int | None = None

    def __str__(self) -> str:
        if self.kafka_end is not None:
            return (
                f"partition {self.partition}: the ledger ends at offset {self.from_offset} and Kafka at "
                f"{self.kafka_end}: what was read stays, the offsets in between will be those of other "
                "messages, and `antenna stream --from` sets where those begin"
            )
        if self.until_offset is None:
            return (
                f"partition {self.partition} of topic id {self.topic_id}: everything after offset "
                f"{self.from_offset - 1}, as the topic was deleted"
            )
        count = self.until_offset - self.from_offset
        offsets = f"offsets {self.from_offset} to {self.until_offset - 1}"
        return f"partition {self.partition}: {counted(count, 'message')}, {offsets}"


def losses(connection: psycopg.Connection, broker: Broker) -> list[Loss]:
    """The messages that Kafka lost before they were read, by partition.

    Raises:
        LedgerError: the ledger has no such topic.
    """
    topic = broker.describe()
    head = read_head(connection, topic.name)
    if kafka_id(head.topic_id) != topic.id:
        ends = connection.execute(
            "SELECT partition, max(until_offset) FROM ledger.batch_offset WHERE topic_id = %s"
            " GROUP BY partition ORDER BY partition",
            [head.topic_id],
        ).fetchall()
        # A topic that was never read has only its id to lose.
        return [Loss(head.topic_id, partition, end, None) for partition, end in ends or [(0, 0)]]
    unread = _unread(connection, head.topic_id, topic)
    following = broker.next_offsets(topic)
    behind = [
        Loss(head.topic_id, partition, offset, None, kafka_end=following[partition])
        for partition, offset in sorted(unread.items())
        if following[partition] < offset
    ]
    if behind:
        return behind
    first = broker.earliest(topic)
    return [
        Loss(head.topic_id, partition, offset, first[partition])
        for partition, offset in sorted(unread.items())
        if first[partition] > offset
    ]


def _unread(connection: psycopg.Connection, topic_id: str, topic: Topic) -> dict[int, int]:
    """The next offset to read of each partition that the stream has seen."""
    starts = {start.partition: start.start_offset for start in read_starts(connection, topic_id).values()}
    return starts | committed_offsets(connection, topic_id, topic.partitions)


def accept_losses(connection: psycopg.Connection, broker: Broker, reason: str) -> list[Loss]:
    """Record the losses, so that the stream continues at Kafka's first message; returns them.

    Raises:
        StreamRunning: a stream runs on this ledger.
        StreamError, LedgerError: as `losses`.
    """
    with only_stream(connection), connection.transaction():
        head = read_head(connection, broker.topic, lock=True)
        found = losses(connection, broker)
        if found:
            _record(connection, head, found, broker.describe(), reason)
    return found


def skip_record(
    connection: psycopg.Connection, broker: Broker, partition: int, offset: int, reason: str
) -> Loss:
    """Record one unreadable record as lost, so that the stream continues after it; returns the loss.

    Raises:
        StreamRunning: a stream runs on this ledger.
        StreamError: it is not the next record to read.
        LedgerError: the ledger has no such topic.
    """
    with only_stream(connection), connection.transaction():
        head = read_head(connection, broker.topic, lock=True)
        topic = broker.describe()
        if kafka_id(head.topic_id) != topic.id or partition not in topic.partitions:
            raise StreamError(f"the ledger has no partition {partition} of {topic.name} as it is now")
        following = next_to_read(connection, broker, topic)[partition]
        if offset != following:
            raise StreamError(
                f"partition {partition} of {topic.name}: expected {following}, the next offset to read, "
                f"found {offset}; only the record that the stream names when it stops can be skipped"
            )
        if offset >= broker.next_offsets(topic)[partition]:
            raise StreamError(
                f"partition {partition} of {topic.name}: there is no record at offset {offset} yet"
            )
        found = Loss(head.topic_id, partition, offset, offset + 1)
        _record(connection, head, [found], topic, reason)
    return found


def _record(connection: psycopg.Connection, head: Head, found: list[Loss], topic: Topic, reason: str) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.accepted_loss (topic, topic_id, partition, from_offset, until_offset, reason)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [(head.topic, x.topic_id, x.partition, x.from_offset, x.until_offset, reason) for x in found],
        )
    if any(loss.until_offset is None for loss in found):
        made_again = kafka_id(head.topic_id) != topic.id
        topic_id = topic.id if made_again else next_life(head.topic_id)
        # The new topic has other partitions: the event times of the old ones must not hold the watermark
        # back.
        connection.execute(
            "UPDATE ledger.head SET topic_id = %s, event_times = '{}', silent_since = '{}',"
            " mark = '{}', mark_at = NULL WHERE topic = %s",
            [topic_id, head.topic],
        )
        if not made_again:
            _keep_other_partitions(connection, head, found, topic, topic_id)
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


def _keep_other_partitions(
    connection: psycopg.Connection, head: Head, found: list[Loss], topic: Topic, topic_id: str
) -> None:
    """Start the partitions that lost nothing where the ledger ends, under the topic's new id."""
    lost = {loss.partition for loss in found}
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.partition_start"
            " (topic, topic_id, partition, first_offset, start_offset, asked)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [
                (head.topic, topic_id, partition, offset, offset, WHERE_THE_LEDGER_ENDS)
                for partition, offset in _unread(connection, head.topic_id, topic).items()
                if partition not in lost
            ],
        )
