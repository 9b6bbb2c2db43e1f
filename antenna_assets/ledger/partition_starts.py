"""Where reading a topic begins: at the first message that the stream ever saw of a partition, or where it was told.

Noted before anything is read, so that whatever Kafka drops from then on is missed. From the first commit on the ledger's
offsets say where to go on, and nothing here matters any more.
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
"""What the start of a partition is noted with that lost nothing, when others of its topic did."""


@dataclass(frozen=True)
class PartitionStart:
    """A partition's row of `ledger.partition_start`."""

    partition: int
    first_offset: int
    start_offset: int
    asked: str | None


@dataclass(frozen=True)
class From:
    """What `antenna stream --from` was told: `text`, and its meaning, one of these three.

    Attributes:
        end: "earliest" or "latest".
        time: Kafka's time of the first message to read.
        offsets: of each partition.
    """

    text: str
    end: str | None = None
    time: datetime | None = None
    offsets: Mapping[int, int] | None = None


def read_from(text: str) -> From:
    """The meaning of a text.

    Raises:
        StreamError: it has none.
    """
    if text in ("earliest", "latest"):
        return From(text, end=text)
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return From(text, time=time.astimezone(UTC))
    except ValueError:
        pass
    pairs = [part.split(":") for part in text.split(",")]
    if all(len(pair) == 2 and all(one.isascii() and one.isdigit() for one in pair) for pair in pairs):
        offsets = {int(partition): int(offset) for partition, offset in pairs}
        if len(offsets) == len(pairs):
            return From(text, offsets=offsets)
    raise StreamError(f"--from: expected {FORMS}, found {text!r}")


def read_starts(connection: psycopg.Connection, topic_id: str) -> dict[int, PartitionStart]:
    """What is noted of a topic, by partition."""
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
    asked: From | None,
    say: Callable[[str], None],
    doubling: Callable[[Mapping[int, int]], str | None],
) -> None:
    """Note where each partition begins that is seen for the first time, or that `asked` is about; say what was gone before.

    Args:
        topic: with the id that the ledger knows.
        doubling: why reading from these offsets on would count messages twice; None if it would not.

    Raises:
        StreamError: `asked` cannot be done, or nobody was asked and the answer matters.
    """
    committed = committed_offsets(connection, topic.id, topic.partitions)
    known = read_starts(connection, topic.id)
    first = broker.earliest(topic)
    if asked is not None and not _is_noted(known, asked):
        kept = {p for p, start in known.items() if start.asked == WHERE_THE_LEDGER_ENDS}
        read = sorted(committed.keys() - kept)
        if read:
            raise StreamError(
                f"--from {asked.text}: the ledger has read partition {read[0]} of {topic.name} up to offset "
                f"{committed[read[0]]}, and the stream goes on there; start it without --from"
            )
        offsets = _offsets_of(broker, topic, asked, first)
        for partition in topic.partitions:
            if partition not in kept:
                _note(connection, topic, partition, first[partition], offsets[partition], asked.text)
        say(f"begins at offsets {', '.join(f'{p}:{offset}' for p, offset in sorted(offsets.items()))}")
        return
    new = [partition for partition in topic.partitions if partition not in known]
    if new and not committed and (why := doubling(first)) is not None:
        raise StreamError(why)
    for partition in new:
        # A partition that was added under a running stream was read from 0 on.
        _note(connection, topic, partition, first[partition] if partition not in committed else 0, None, None)
        if partition not in committed and first[partition] > 0:
            say(
                f"partition {partition} of {topic.name}: Kafka's first offset is {first[partition]}, so messages 0 to "
                f"{first[partition] - 1} were gone before the stream first saw it; they are in no hour"
            )


def _is_noted(known: Mapping[int, PartitionStart], asked: From) -> bool:
    """Whether the very same was asked before: a service is started again with the same arguments."""
    mine = [start for start in known.values() if start.asked != WHERE_THE_LEDGER_ENDS]
    return (
        bool(mine)
        and all(start.asked in (asked.text, None) for start in mine)
        and any(start.asked == asked.text for start in mine)
    )


def _offsets_of(broker: Broker, topic: Topic, asked: From, first: Mapping[int, int]) -> dict[int, int]:
    if asked.end == "earliest":
        return dict(first)
    following = broker.next_offsets(topic)
    if asked.end == "latest":
        return following
    if asked.time is not None:
        # A message of an open transaction is beyond what can be read yet.
        found = broker.first_at(topic, asked.time)
        return {p: end if (at := found[p]) is None else min(at, end) for p, end in following.items()}
    offsets = dict(asked.offsets or {})
    if set(offsets) != set(topic.partitions):
        raise StreamError(
            f"--from {asked.text}: expected each of the partitions {', '.join(map(str, topic.partitions))} once"
        )
    for partition, offset in offsets.items():
        if not first[partition] <= offset <= following[partition]:
            raise StreamError(
                f"--from {asked.text}: Kafka has offsets {first[partition]} to {following[partition]} of partition "
                f"{partition}, not {offset}"
            )
    return offsets


def _note(
    connection: psycopg.Connection,
    topic: Topic,
    partition: int,
    first: int,
    start: int | None,
    asked: str | None,
) -> None:
    connection.execute(
        "INSERT INTO ledger.partition_start AS known (topic, topic_id, partition, first_offset, start_offset, asked)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (topic_id, partition) DO UPDATE"
        " SET start_offset = excluded.start_offset, asked = excluded.asked, noted_at = excluded.noted_at",
        [topic.name, topic.id, partition, first, first if start is None else start, asked],
    )
