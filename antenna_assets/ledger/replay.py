"""The transaction that commits a replay: messages leave the quarantine as their rows join their hours.

`operations/quarantine/replay.py` selects the messages and writes their files.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key
from antenna_assets.ledger.batch import BatchContent, insert_batch, rows_per_hour
from antenna_assets.ledger.closed_hours import close_passed
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.head import read_head
from antenna_assets.ledger.publications import require_nobody_forgotten


class AlreadyReplayed(LedgerError):
    """Another replay has committed one of the messages. Nothing was written."""


class HourInPart(LedgerError):
    """The ledger no longer has all files of an hour: with new rows, only a part of it could be published."""


@dataclass(frozen=True)
class ReplayedMessage:
    """The coordinates of a replayed message, which are its key, and why it had been rejected."""

    topic_id: str
    partition: int
    offset: int
    reason: str


def hours_in_part(connection: psycopg.Connection, hours: Iterable[datetime]) -> list[datetime]:
    """The hours of which retention has removed files."""
    rows = connection.execute(
        "SELECT hour FROM ledger.hour WHERE hour = ANY(%s) AND rows <>"
        " (SELECT coalesce(sum(file.rows), 0) FROM ledger.file"
        "  WHERE file.hour = hour.hour AND file.kind = 'landed') ORDER BY hour",
        [list(hours)],
    )
    return [hour for (hour,) in rows.fetchall()]


def commit_replay(
    connection: psycopg.Connection,
    *,
    topic: str,
    clock: datetime,
    messages: Sequence[ReplayedMessage],
    content: BatchContent,
    transform: str | None,
) -> int:
    """Commit a replay as a batch of its own; returns the batch's number. No offset and no watermark moves.

    Args:
        clock: PostgreSQL's clock, by which the messages were validated.
        messages: the messages of the rows, one each.
        transform: the Python source of the transformation, if there was one.

    Raises:
        AlreadyReplayed: one of the messages was replayed since it was selected; nothing was written.
        HourInPart: retention has removed files of an hour that would get rows; nothing was written.
        ForgottenMeanwhile: a user was forgotten since the connection was opened; nothing was written.
        LedgerError: the number of rows is not that of the messages.
    """
    if content.rejections or content.rows != len(messages):
        raise LedgerError(
            f"expected {counted(len(messages), 'accepted row')} of a replay and no rejected one, found "
            f"{content.rows} and {sum(content.rejections.values())}: nothing was committed"
        )
    with _each_message_once(), connection.transaction():
        head = read_head(connection, topic, lock=True)
        number = head.batch + 1
        _require_whole_hours(connection, content)
        insert_batch(
            connection,
            content,
            number=number,
            kind="replay",
            clock=clock,
            low_watermark=head.low_watermark,
            now=clock,
        )
        connection.execute(
            "INSERT INTO ledger.replay (batch, transform) VALUES (%s, %s)", [number, transform]
        )
        require_nobody_forgotten(connection)
        _insert_messages(connection, messages, number)
        # Or an hour that a replay opens behind the watermark would stay open until the stream's next batch.
        close_passed(
            connection, head, head.low_watermark, now=clock, first_hour=head.first_hour, closed_by="watermark"
        )
        connection.execute("UPDATE ledger.head SET batch = %s WHERE topic = %s", [number, topic])
    return number


@contextmanager
def _each_message_once() -> Iterator[None]:
    """Turn the violation of the replayed messages' key into an error of ours.

    Raises:
        AlreadyReplayed: another replay was faster.
    """
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        if error.diag.constraint_name != "replayed_pkey":
            raise
        raise AlreadyReplayed(
            "another replay was faster with some of these messages, so nothing was written; "
            "run it again for the others"
        ) from error


def _require_whole_hours(connection: psycopg.Connection, content: BatchContent) -> None:
    in_part = hours_in_part(connection, rows_per_hour(content))
    if in_part:
        raise HourInPart(
            f"hour {hour_key(in_part[0])} has lost landed files to retention since the messages were "
            "selected, so nothing was written; run the replay again, which skips such hours"
        )


def _insert_messages(
    connection: psycopg.Connection, messages: Sequence[ReplayedMessage], number: int
) -> None:
    statement = "COPY ledger.replayed (topic_id, partition, kafka_offset, reason, batch) FROM STDIN"
    with connection.cursor().copy(statement) as writer:
        for message in messages:
            writer.write_row((message.topic_id, message.partition, message.offset, message.reason, number))
