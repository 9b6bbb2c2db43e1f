"""Where reading a partition begins: at the first message that the stream saw, or at the position of `--from`.

It is recorded before anything is read, so that messages that Kafka drops from then on are missed. After the
first commit the committed offsets apply instead.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg.rows import class_row

from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.errors import StreamError
from antenna_assets.ledger.offsets import committed_offsets

FORMS = "earliest, latest, a time such as 2026-11-20T10:00:00Z, or each partition as 0:1500,1:980"

WHERE_THE_LEDGER_ENDS = "where the ledger ends"
"""The recorded request of a partition that lost nothing, when others of its topic did."""


@dataclass(frozen=True)
class PartitionStart:
    """A partition's row of `ledger.partition_start`."""

    partition: int
    first_offset: int
    start_offset: int
    asked: str | None


@dataclass(frozen=True)
class StartPosition:
    """The position of `antenna stream --from`: its text, and one of the others.

    Attributes:
        end: "earliest" or "latest".
        time: the record time of the first message to read.
        offsets: the first offset of each partition.
    """

    text: str
    end: str | None = None
    time: datetime | None = None
    offsets: Mapping[int, int] | None = None


def parse_start_position(text: str) -> StartPosition:
    """Parse a start position.

    Raises:
        StreamError: it is in none of the forms.
    """
    if text in ("earliest", "latest"):
        return StartPosition(text, end=text)
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return StartPosition(text, time=time.astimezone(UTC))
    except ValueError:
        pass
    pairs = [part.split(":") for part in text.split(",")]
    if all(len(pair) == 2 and all(one.isascii() and one.isdigit() for one in pair) for pair in pairs):
        offsets = {int(partition): int(offset) for partition, offset in pairs}
        if len(offsets) == len(pairs):
            return StartPosition(text, offsets=offsets)
    raise StreamError(f"--from: expected {FORMS}, found {text!r}")


def read_starts(connection: psycopg.Connection, topic_id: str) -> dict[int, PartitionStart]:
    """The recorded starts of a topic, by partition."""
    with connection.cursor(row_factory=class_row(PartitionStart)) as cursor:
        rows = cursor.execute(
            "SELECT partition, first_offset, start_offset, asked FROM ledger.partition_start"
            " WHERE topic_id = %s ORDER BY partition",
            [topic_id],
        ).fetchall()
    return {row.partition: row for row in rows}


def settle_starts(
    connection: psycopg.Connection,
    broker: Broker,
    topic: Topic,
    asked: StartPosition | None,
    say: Callable[[str], None],
    doubling: Callable[[Mapping[int, int]], str | None],
) -> None:
    """Record the start of each new partition, or of all if `asked`; report what Kafka had dropped before.

    Args:
        topic: with the ledger's id.
        doubling: why reading from these offsets would count messages twice; None if it would not.

    Raises:
        StreamError: `asked` is not possible, or messages would be counted twice and `asked` is None.
    """
    committed = committed_offsets(connection, topic.id, topic.partitions)
    known = read_starts(connection, topic.id)
    first = broker.earliest(topic)
    if asked is not None and not _is_recorded(known, asked):
        kept = {p for p, start in known.items() if start.asked == WHERE_THE_LEDGER_ENDS}
        read = sorted(committed.keys() - kept)
        if read:
            raise StreamError(
                f"--from {asked.text}: the ledger has read partition {read[0]} of {topic.name} up to offset "
                f"{committed[read[0]]}, where the stream continues; start it without --from"
            )
        offsets = _offsets_of(broker, topic, asked, first)
        for partition in topic.partitions:
            if partition not in kept:
                _record(connection, topic, partition, first[partition], offsets[partition], asked.text)
        say(f"begins at offsets {', '.join(f'{p}:{offset}' for p, offset in sorted(offsets.items()))}")
        return
    new = [partition for partition in topic.partitions if partition not in known]
    if new and not committed and (why := doubling(first)) is not None:
        raise StreamError(why)
    for partition in new:
        # A partition that was added while a stream ran is read from offset 0.
        _record(
            connection, topic, partition, first[partition] if partition not in committed else 0, None, None
        )
        if partition not in committed and first[partition] > 0:
            say(
                f"partition {partition} of {topic.name}: Kafka's first offset is {first[partition]}, so "
                f"messages 0 to {first[partition] - 1} were gone before the stream first saw it; they are in "
                "no hour"
            )


def _is_recorded(known: Mapping[int, PartitionStart], asked: StartPosition) -> bool:
    """Whether the same position is recorded already: a service is restarted with the same arguments."""
    mine = [start for start in known.values() if start.asked != WHERE_THE_LEDGER_ENDS]
    return (
        bool(mine)
        and all(start.asked in (asked.text, None) for start in mine)
        and any(start.asked == asked.text for start in mine)
    )


def _offsets_of(
    broker: Broker, topic: Topic, asked: StartPosition, first: Mapping[int, int]
) -> dict[int, int]:
    if asked.end == "earliest":
        return dict(first)
    following = broker.next_offsets(topic)
    if asked.end == "latest":
        return following
    if asked.time is not None:
        # A message of an open transaction cannot be read yet.
        found = broker.first_at(topic, asked.time)
        return {p: end if (at := found[p]) is None else min(at, end) for p, end in following.items()}
    offsets = dict(asked.offsets or {})
    if set(offsets) != set(topic.partitions):
        raise StreamError(
            f"--from {asked.text}: expected each of the partitions {', '.join(map(str, topic.partitions))} "
            "once"
        )
    for partition, offset in offsets.items():
        if not first[partition] <= offset <= following[partition]:
            raise StreamError(
                f"--from {asked.text}: Kafka has offsets {first[partition]} to {following[partition]} of "
                f"partition {partition}, not {offset}"
            )
    return offsets


def _record(
    connection: psycopg.Connection,
    topic: Topic,
    partition: int,
    first: int,
    start: int | None,
    asked: str | None,
) -> None:
    connection.execute(
        "INSERT INTO ledger.partition_start AS known"
        " (topic, topic_id, partition, first_offset, start_offset, asked)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (topic_id, partition) DO UPDATE"
        " SET start_offset = excluded.start_offset, asked = excluded.asked, noted_at = excluded.noted_at",
        [topic.name, topic.id, partition, first, first if start is None else start, asked],
    )
