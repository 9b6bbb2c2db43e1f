"""The one transaction in which a micro-batch comes to exist, and that of a heartbeat.

Files are written before, by `streaming/spark/land.py`; hours are closed by `closed_hours.py`; a replay's transaction is `replay.py`.
Nothing is retried here: after any error the ledger is read again.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg

from antenna_assets.domain.closing_rule import (
    Left,
    Memory,
    hours_kept_open,
    looked,
    marked,
    read_whole,
    told,
    watermark,
)
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.batch import Landed, insert_batch
from antenna_assets.ledger.closed_hours import close_passed, close_quiet, first_open_hour, quiet_hours_of
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.head import Head, move_head, read_head
from antenna_assets.ledger.offsets import OffsetRange, committed_offsets


class NotContiguous(LedgerError):
    """The batch does not begin where the ledger ends: another writer was faster, or the ledger changed."""


def commit_batch(
    connection: psycopg.Connection,
    *,
    topic: str,
    topic_id: str,
    number: int,
    clock: datetime,
    ranges: Sequence[OffsetRange],
    landed: Landed,
    lagging: Collection[int],
    lateness: timedelta,
    now: datetime | None = None,
    left: str = "",
    host_clock: str | None = None,
    before_commit: Callable[[], None] = lambda: None,
) -> datetime | None:
    """Commit a micro-batch; returns the new low watermark.

    Args:
        number: one above the ledger's newest batch as the caller found it. Replays that committed since leave the batch a
            higher number: the one it gets is the head's next.
        clock: PostgreSQL's clock that the batch's verdicts used.
        lagging: partitions that are not read out after this batch.
        now: PostgreSQL's clock before Kafka was asked for that; that of the verdicts if not given.
        left: what is left in these partitions, in words.
        host_clock: what is wrong with the clock of this host.
        before_commit: called when only the COMMIT is left: after an error before that, nothing was committed for sure.

    Raises:
        NotContiguous: another batch of a stream was committed since; nothing was written.
        AttemptTooOld: the files were begun so long ago that a sweep may have taken them, or are gone; nothing was written.
        WrongLake: the lake is not the ledger's any more; nothing was written.
        HourExpired: an hour's earlier files are past their retention; nothing was written.
    """
    now = clock if now is None else now
    commit_point("stream.commit.before")
    with connection.transaction():
        head = read_head(connection, topic, lock=True)
        if head.topic_id != topic_id or _stream_moved(connection, head, number - 1):
            raise NotContiguous(
                f"expected to commit batch {number} of topic id {topic_id}, but the ledger of {topic} is at batch "
                f"{head.batch} of topic id {head.topic_id}: another stream wrote to it"
            )
        number = head.batch + 1
        _require_contiguous(connection, topic_id, ranges)
        memory = looked(head.memory, now=now, lagging=lagging, delivered=landed.event_times)
        passed, closed_by = watermark(memory, now=now, lagging=lagging, lateness=lateness)
        memory = replace(memory, low_watermark=passed)
        insert_batch(
            connection,
            number=number,
            kind="stream",
            clock=clock,
            landed=landed,
            low_watermark=passed,
            now=now,
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO ledger.batch_offset (topic, topic_id, partition, from_offset, until_offset, batch)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                [(topic, topic_id, r.partition, r.from_offset, r.until_offset, number) for r in ranges],
            )
        commit_point("stream.commit.offsets")
        first_hour = head.first_hour
        if first_hour is None and landed.first_event_time is not None:
            first_hour = hour_of(landed.first_event_time)
        close_passed(connection, head, passed, now=now, first_hour=first_hour, closed_by=closed_by)
        kept_open = lagging and hours_kept_open(first_hour, passed, now=now, lateness=lateness)
        move_head(
            connection,
            head,
            batch=number,
            first_hour=first_hour,
            memory=memory,
            held_by=left if kept_open else None,
            host_clock=host_clock,
        )
        _end_wait(connection, topic)
        commit_point("stream.commit.last_statement")
        before_commit()
    commit_point("stream.commit.committed")
    return passed


def commit_heartbeat(
    connection: psycopg.Connection,
    *,
    topic: str,
    batch: int,
    now: datetime,
    lateness: timedelta,
    quiet: timedelta | None = None,
    left: Mapping[int, Left] | None = None,
    read_past: datetime | None = None,
    host_clock: str | None = None,
) -> datetime | None:
    """Close what can be closed without another batch; returns the low watermark.

    Args:
        now: PostgreSQL's clock before Kafka was asked what is left.
        quiet: an hour that ended and got no row for so long closes; None closes none for that.
        left: the partitions that are not read out, and what is left in them.
        read_past: every partition is read past this instant by Kafka's own record times.
        host_clock: what is wrong with the clock of this host.

    Raises:
        NotContiguous: the stream committed a batch after `batch`, so the caller's look at Kafka is stale.
    """
    left = left or {}
    with connection.transaction():
        head = read_head(connection, topic, lock=True)
        if _stream_moved(connection, head, batch):
            raise NotContiguous(f"expected batch {batch} to be the newest of {topic}, found {head.batch}")
        memory = marked(looked(head.memory, now=now, lagging=left, delivered={}), now=now, left=left)
        passed, closed_by = watermark(memory, now=now, lagging=left, lateness=lateness)
        close_passed(connection, head, passed, now=now, first_hour=head.first_hour, closed_by=closed_by)
        memory = replace(memory, low_watermark=passed)
        if quiet is not None and left:
            memory = _close_quiet(connection, head, memory, now, lateness, quiet, read_past)
        kept_open = left and hours_kept_open(
            head.first_hour, memory.low_watermark, now=now, lateness=lateness
        )
        move_head(
            connection,
            head,
            batch=head.batch,
            first_hour=head.first_hour,
            memory=memory,
            held_by=told(left) if kept_open else None,
            host_clock=host_clock,
        )
        connection.execute("UPDATE ledger.head SET heartbeat_at = %s WHERE topic = %s", [now, topic])
        # Messages that are left may be those that the lake has no space for.
        if not left:
            _end_wait(connection, topic)
        commit_point("stream.heartbeat.last_statement")
    commit_point("stream.heartbeat.committed")
    return memory.low_watermark


def _close_quiet(
    connection: psycopg.Connection,
    head: Head,
    memory: Memory,
    now: datetime,
    lateness: timedelta,
    quiet: timedelta,
    read_past: datetime | None,
) -> Memory:
    """Close the quiet hours that are read whole; the watermark goes on to the first hour that is still open."""
    known = [instant for instant in (read_past, memory.read_past) if instant is not None]
    hours = read_whole(
        quiet_hours_of(connection, head, memory, now=now, lateness=lateness, quiet=quiet),
        max(known, default=None),
    )
    if not hours:
        return memory
    close_quiet(connection, hours)
    kept_open = hours_kept_open(head.first_hour, memory.low_watermark, now=now, lateness=lateness)
    open_from = first_open_hour(connection, kept_open[0], kept_open[-1] + HOUR)
    return replace(memory, low_watermark=max(open_from, memory.low_watermark or open_from))


def _end_wait(connection: psycopg.Connection, topic: str) -> None:
    """The stream waits for nothing any more."""
    connection.execute(
        "UPDATE ledger.head SET waiting_for = NULL, waiting_since = NULL WHERE topic = %s AND waiting_for IS NOT NULL",
        [topic],
    )


def _stream_moved(connection: psycopg.Connection, head: Head, batch: int) -> bool:
    """Whether the ledger is elsewhere than at `batch`, replays aside: they move no offset."""
    if head.batch <= batch:
        return head.batch < batch
    row = connection.execute(
        "SELECT 1 FROM ledger.batch WHERE batch > %s AND kind <> 'replay' LIMIT 1", [batch]
    ).fetchone()
    return row is not None


def _require_contiguous(connection: psycopg.Connection, topic_id: str, ranges: Sequence[OffsetRange]) -> None:
    committed = committed_offsets(connection, topic_id, [r.partition for r in ranges])
    for r in ranges:
        if committed.get(r.partition, r.from_offset) != r.from_offset:
            raise NotContiguous(
                f"partition {r.partition}: expected a batch that begins at offset {committed[r.partition]}, "
                f"found one that begins at {r.from_offset}"
            )
