"""The transaction that commits a micro-batch, and that of a heartbeat between two micro-batches.

Nothing is retried here: after an error the caller reads the ledger again. A replay's transaction is in
`replay.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import psycopg

from antenna_assets.domain.closing_rule import (
    Backlog,
    ClosingState,
    backlog_marked,
    backlog_text,
    fully_read,
    hours_kept_open,
    observed,
    watermark,
)
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.batch import BatchContent, BatchPlan, insert_batch
from antenna_assets.ledger.closed_hours import close_passed, close_quiet, first_open_hour, quiet_hours_of
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.head import Head, move_head, read_head
from antenna_assets.ledger.offsets import OffsetRange, committed_offsets


class NotContiguous(LedgerError):
    """The batch does not start where the ledger ends: another writer was faster, or the ledger changed."""


@dataclass(frozen=True)
class Observation:
    """PostgreSQL's clock and Kafka's backlog, as the stream saw them just before a commit.

    Attributes:
        now: PostgreSQL's clock before Kafka was asked: an event that arrives later may still be on time.
        backlog: what is left in each partition that is not read out.
        read_past: by Kafka's own record times, everything before this instant is read; None if that is not
            known.
        host_clock: what is wrong with the clock of this host; None if it is right.
    """

    now: datetime
    backlog: Mapping[int, Backlog] = field(default_factory=dict)
    read_past: datetime | None = None
    host_clock: str | None = None


def commit_batch(
    connection: psycopg.Connection,
    plan: BatchPlan,
    content: BatchContent,
    seen: Observation,
    *,
    lateness: timedelta,
    before_commit: Callable[[], None] = lambda: None,
) -> Head:
    """Commit a micro-batch in one transaction; returns the new head.

    The files are on the disk before it begins. Within the transaction:

    1. Lock the ledger's head: one writer commits at a time, and a sweep waits.
    2. Require that the batch starts exactly where the ledger ends, by batch number and by offset.
    3. Compute the new low watermark, and how far Kafka is read.
    4. Record the batch: counts, files, rejections, rows per hour, live sums.
    5. Record the offset ranges that the batch covers.
    6. Close the hours that the watermark has passed.
    7. Move the head, which is the stream's checkpoint.

    Either all of this is committed or none of it. After a crash the stream resumes at the offsets of the
    ledger; files of an attempt that was not committed are orphans, which no reader sees and a sweep removes.

    Args:
        before_commit: called when only the COMMIT is left. After an error before that, nothing was committed
            for certain.

    Raises:
        NotContiguous: another stream committed a batch in the meantime.
        AttemptTooOld: the files were begun so long ago that a sweep may have removed them, or are missing.
        WrongLake: the lake no longer belongs to this ledger.
        HourExpired: earlier files of an hour are past their retention.
            After each of these, nothing was written.
    """
    commit_point("stream.commit.before")
    with connection.transaction():
        # 1. Lock the head.
        head = read_head(connection, plan.topic, lock=True)
        # 2. The batch starts where the ledger ends.
        if head.topic_id != plan.topic_id or _stream_moved(connection, head, plan.number - 1):
            raise NotContiguous(
                f"expected to commit batch {plan.number} of topic id {plan.topic_id}, but the ledger of "
                f"{plan.topic} is at batch {head.batch} of topic id {head.topic_id}: another stream wrote to "
                "it"
            )
        _require_contiguous(connection, plan.topic_id, plan.ranges)
        # Replays that were committed since the caller read the head leave the batch a higher number.
        plan = replace(plan, number=head.batch + 1)
        # 3. The new low watermark, and how far Kafka is read.
        now, lagging = seen.now, seen.backlog
        state = observed(head.state, now=now, lagging=lagging, delivered=content.event_times)
        state = backlog_marked(state, now=now, backlog=lagging)
        passed, closed_by = watermark(state, now=now, lagging=lagging, lateness=lateness)
        state = replace(state, low_watermark=passed)
        # 4. The batch.
        insert_batch(
            connection,
            content,
            number=plan.number,
            kind="stream",
            clock=plan.clock,
            low_watermark=passed,
            now=now,
        )
        # 5. Its offsets.
        _insert_offsets(connection, plan)
        commit_point("stream.commit.offsets")
        # 6. Hours that the watermark has passed.
        first_hour = head.first_hour
        if first_hour is None and content.first_event_time is not None:
            first_hour = hour_of(content.first_event_time)
        close_passed(connection, head, passed, now=now, first_hour=first_hour, closed_by=closed_by)
        # 7. The head.
        kept_open = lagging and hours_kept_open(first_hour, passed, now=now, lateness=lateness)
        head = replace(head, batch=plan.number, first_hour=first_hour, state=state)
        move_head(
            connection,
            head,
            held_by=backlog_text(seen.backlog) if kept_open else None,
            host_clock=seen.host_clock,
        )
        _end_wait(connection, plan.topic)
        commit_point("stream.commit.last_statement")
        before_commit()
    commit_point("stream.commit.committed")
    return head


def commit_heartbeat(
    connection: psycopg.Connection,
    topic: str,
    batch: int,
    seen: Observation,
    *,
    lateness: timedelta,
    quiet: timedelta | None = None,
) -> datetime | None:
    """Close the hours that can be closed without another batch; returns the low watermark.

    Args:
        batch: the ledger's newest one when Kafka was asked.
        quiet: an hour closes that ended, and got its last row, at least this long ago; None: no hour closes
            for that.

    Raises:
        NotContiguous: the stream has committed a batch since `batch`, so the observation is stale.
    """
    now, backlog = seen.now, seen.backlog
    with connection.transaction():
        head = read_head(connection, topic, lock=True)
        if _stream_moved(connection, head, batch):
            raise NotContiguous(f"expected batch {batch} to be the newest of {topic}, found {head.batch}")
        state = observed(head.state, now=now, lagging=backlog, delivered={})
        state = backlog_marked(state, now=now, backlog=backlog)
        passed, closed_by = watermark(state, now=now, lagging=backlog, lateness=lateness)
        close_passed(connection, head, passed, now=now, first_hour=head.first_hour, closed_by=closed_by)
        state = replace(state, low_watermark=passed)
        if quiet is not None and backlog:
            state = _close_quiet(connection, replace(head, state=state), seen, lateness, quiet)
        kept_open = backlog and hours_kept_open(
            head.first_hour, state.low_watermark, now=now, lateness=lateness
        )
        move_head(
            connection,
            replace(head, state=state),
            held_by=backlog_text(backlog) if kept_open else None,
            host_clock=seen.host_clock,
        )
        connection.execute("UPDATE ledger.head SET heartbeat_at = %s WHERE topic = %s", [now, topic])
        # A backlog may be of messages that the lake has no space for: the wait has not ended then.
        if not backlog:
            _end_wait(connection, topic)
        commit_point("stream.heartbeat.last_statement")
    commit_point("stream.heartbeat.committed")
    return state.low_watermark


def _close_quiet(
    connection: psycopg.Connection, head: Head, seen: Observation, lateness: timedelta, quiet: timedelta
) -> ClosingState:
    """Close the quiet hours that are fully read; the watermark advances to the first open hour."""
    state, now = head.state, seen.now
    known = [instant for instant in (seen.read_past, state.read_past) if instant is not None]
    hours = fully_read(
        quiet_hours_of(connection, head, now=now, lateness=lateness, quiet=quiet),
        max(known, default=None),
    )
    if not hours:
        return state
    close_quiet(connection, hours)
    kept_open = hours_kept_open(head.first_hour, state.low_watermark, now=now, lateness=lateness)
    open_from = first_open_hour(connection, kept_open[0], kept_open[-1] + HOUR)
    return replace(state, low_watermark=max(open_from, state.low_watermark or open_from))


def _end_wait(connection: psycopg.Connection, topic: str) -> None:
    """Clear what the stream was waiting for."""
    connection.execute(
        "UPDATE ledger.head SET waiting_for = NULL, waiting_since = NULL"
        " WHERE topic = %s AND waiting_for IS NOT NULL",
        [topic],
    )


def _stream_moved(connection: psycopg.Connection, head: Head, batch: int) -> bool:
    """Whether the stream is at another batch than `batch`; replays do not count, as they move no offset."""
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


def _insert_offsets(connection: psycopg.Connection, plan: BatchPlan) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.batch_offset (topic, topic_id, partition, from_offset, until_offset, batch)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [
                (plan.topic, plan.topic_id, r.partition, r.from_offset, r.until_offset, plan.number)
                for r in plan.ranges
            ],
        )
