"""The ledger's head: the one row of a topic that says which topic it is and how far the ledger has come.

Whoever commits takes its lock first; what moves it is in `commit.py`, `commit_replay.py`, `closing.py` and `loss.py`.
"""

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from antenna_assets.ledger import LedgerError


@dataclass(frozen=True)
class Head:
    """The ledger's head row of a topic."""

    topic: str
    topic_id: str
    batch: int
    event_times: dict[int, datetime]
    low_watermark: datetime | None
    first_hour: datetime | None


def claim_topic(connection: psycopg.Connection, topic: str, topic_id: str) -> Head:
    """Make the head row in an empty ledger; stop if the topic is not the one the ledger knows.

    Raises:
        LedgerError: the ledger holds another topic, or the topic was deleted and created again.
    """
    # One ledger numbers the batches of one topic: two would number their batches alike.
    other = connection.execute("SELECT topic FROM ledger.head WHERE topic <> %s", [topic]).fetchone()
    if other is not None:
        raise LedgerError(
            f"this ledger holds topic {other[0]}, not {topic}; correct ANTENNA_TOPIC, or use another database for {topic}"
        )
    connection.execute(
        "INSERT INTO ledger.head (topic, topic_id) VALUES (%s, %s) ON CONFLICT (topic) DO NOTHING",
        [topic, topic_id],
    )
    head = read_head(connection, topic)
    if kafka_id(head.topic_id) != topic_id:
        raise LedgerError(
            f"topic {topic} was deleted and created again: the ledger knows id {head.topic_id}, Kafka has {topic_id}; "
            "its offsets mean other messages now, so nothing was read; `antenna accept-loss` records it and goes on with the "
            "new topic"
        )
    return head


def kafka_id(topic_id: str) -> str:
    """The id that Kafka has for a topic of the ledger.

    The ledger counts the lives of a topic that lost what was read of it, as `id#2`: its offsets mean other messages then.
    """
    return topic_id.partition("#")[0]


def next_life(topic_id: str) -> str:
    """The ledger's id of a topic once Kafka has lost what was read of it."""
    kafka, _, life = topic_id.partition("#")
    return f"{kafka}#{int(life or 1) + 1}"


def ledger_id(connection: psycopg.Connection, topic: str, topic_id: str) -> str:
    """The id under which the ledger knows a topic that has this one in Kafka."""
    row = connection.execute("SELECT topic_id FROM ledger.head WHERE topic = %s", [topic]).fetchone()
    return row[0] if row is not None and kafka_id(row[0]) == topic_id else topic_id


def read_head(connection: psycopg.Connection, topic: str, *, lock: bool = False) -> Head:
    """The head row of a topic; with `lock` it is the caller's until its transaction ends."""
    row = connection.execute(
        sql.SQL(
            "SELECT topic_id, batch, event_times, low_watermark, first_hour FROM ledger.head WHERE topic = %s {}"
        ).format(sql.SQL("FOR UPDATE" if lock else "")),
        [topic],
    ).fetchone()
    if row is None:
        raise LedgerError(f"the ledger has no head for topic {topic}")
    topic_id, batch, event_times, watermark, first_hour = row
    times = {int(partition): datetime.fromisoformat(time) for partition, time in event_times.items()}
    return Head(topic, topic_id, batch, times, watermark, first_hour)
