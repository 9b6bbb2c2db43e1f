"""The ledger's head: the row of the topic with its id, the newest batch and the state of closing.

Every transaction that commits to the ledger locks it first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from antenna_assets.domain.closing_rule import ClosingState
from antenna_assets.ledger.errors import LedgerError


@dataclass(frozen=True)
class Head:
    """The ledger's head row of a topic."""

    topic: str
    topic_id: str
    batch: int
    first_hour: datetime | None
    state: ClosingState

    @property
    def low_watermark(self) -> datetime | None:
        """Every hour that it has passed is closed."""
        return self.state.low_watermark

    @property
    def event_times(self) -> Mapping[int, datetime]:
        """The largest accepted event time of each partition that has one."""
        return self.state.event_times


def claim_topic(connection: psycopg.Connection, topic: str, topic_id: str) -> Head:
    """Return the head of the topic, creating it in an empty ledger.

    Raises:
        LedgerError: the ledger holds another topic, or the topic was deleted and created again.
    """
    # A ledger numbers the batches of one topic; those of two would collide.
    other = connection.execute("SELECT topic FROM ledger.head WHERE topic <> %s", [topic]).fetchone()
    if other is not None:
        raise LedgerError(
            f"this ledger holds topic {other[0]}, not {topic}; "
            f"correct ANTENNA_TOPIC, or use another database for {topic}"
        )
    connection.execute(
        "INSERT INTO ledger.head (topic, topic_id) VALUES (%s, %s) ON CONFLICT (topic) DO NOTHING",
        [topic, topic_id],
    )
    head = read_head(connection, topic)
    require_same_topic(head, topic_id)
    return head


def require_same_topic(head: Head, topic_id: str) -> None:
    """Require that the topic has Kafka's id of the ledger's topic.

    Raises:
        LedgerError: the topic was deleted and created again.
    """
    if kafka_id(head.topic_id) != topic_id:
        raise LedgerError(
            f"topic {head.topic} was deleted and created again: the ledger has id {head.topic_id}, Kafka has "
            f"{topic_id}; its offsets are those of other messages now, so nothing was read; `antenna "
            "accept-loss` records it and continues with the new topic"
        )


def kafka_id(topic_id: str) -> str:
    """Kafka's id of a topic of the ledger.

    When a topic loses messages that were read, its offsets are assigned again. The ledger then gives it
    another id, `id#2`.
    """
    return topic_id.partition("#")[0]


def next_life(topic_id: str) -> str:
    """The ledger's next id of a topic, after Kafka has lost messages that were read."""
    kafka, _, life = topic_id.partition("#")
    return f"{kafka}#{int(life or 1) + 1}"


def ledger_id(connection: psycopg.Connection, topic: str, topic_id: str) -> str:
    """The ledger's id of a topic that has this id in Kafka."""
    row = connection.execute("SELECT topic_id FROM ledger.head WHERE topic = %s", [topic]).fetchone()
    return row[0] if row is not None and kafka_id(row[0]) == topic_id else topic_id


def read_head(connection: psycopg.Connection, topic: str, *, lock: bool = False) -> Head:
    """The head row of a topic; `lock` locks it until the end of the caller's transaction.

    Raises:
        LedgerError: the ledger has no such topic.
    """
    row = connection.execute(
        sql.SQL(
            "SELECT topic_id, batch, first_hour, looked_at, watched_since, low_watermark, event_times,"
            " silent_since, mark, mark_at, read_past FROM ledger.head WHERE topic = %s {}"
        ).format(sql.SQL("FOR UPDATE" if lock else "")),
        [topic],
    ).fetchone()
    if row is None:
        raise LedgerError(f"the ledger has no head for topic {topic}")
    (
        topic_id,
        batch,
        first_hour,
        looked_at,
        watched_since,
        low_watermark,
        times,
        silent,
        mark,
        mark_at,
        past,
    ) = row
    state = ClosingState(
        looked_at,
        watched_since,
        low_watermark,
        _instants(times),
        _instants(silent),
        {int(partition): offset for partition, offset in mark.items()},
        mark_at,
        past,
    )
    return Head(topic, topic_id, batch, first_hour, state)


def _instants(found: Mapping[str, str]) -> dict[int, datetime]:
    return {int(partition): datetime.fromisoformat(time) for partition, time in found.items()}


def move_head(
    connection: psycopg.Connection, head: Head, *, held_by: str | None, host_clock: str | None
) -> None:
    """Write the head row, in the transaction that has locked it.

    Args:
        held_by: what keeps an hour open that has ended; None if nothing does.
        host_clock: what is wrong with the clock of the stream's host; None if it is right.
    """
    state = head.state
    connection.execute(
        "UPDATE ledger.head SET batch = %s, first_hour = %s, looked_at = %s, watched_since = %s,"
        " low_watermark = %s, event_times = %s, silent_since = %s, mark = %s, mark_at = %s, read_past = %s,"
        " held_by = %s::text,"
        " held_since = CASE WHEN %s::text IS NOT NULL THEN coalesce(held_since, %s) END,"
        " host_clock = %s WHERE topic = %s",
        [
            head.batch,
            head.first_hour,
            state.looked_at,
            state.watched_since,
            state.low_watermark,
            _json(state.event_times),
            _json(state.silent_since),
            Jsonb({str(partition): offset for partition, offset in state.mark.items()}),
            state.mark_at,
            state.read_past,
            held_by,
            held_by,
            state.looked_at,
            host_clock,
            head.topic,
        ],
    )


def _json(times: Mapping[int, datetime]) -> Jsonb:
    return Jsonb({str(partition): time.isoformat() for partition, time in times.items()})


def lock_heads(connection: psycopg.Connection) -> None:
    """Lock the heads: wait for running commits, and block others until the caller's transaction ends."""
    connection.execute("SELECT FROM ledger.head ORDER BY topic FOR UPDATE")
