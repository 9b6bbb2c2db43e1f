"""The one transaction in which a micro-batch comes to exist, and that of a heartbeat.

Files are written before, by `streaming/spark/land.py`; hours are closed by `closed_hours.py`; a replay's transaction is `replay.py`.
Nothing is retried here: after any error the ledger is read again.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

import psycopg
from psycopg import sql

from antenna_assets.clients.clock import host_now
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
from antenna_assets.domain.lifetimes import LIVE_RETENTION, require_young
from antenna_assets.domain.schema import LIVE_TABLES
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.batch import Landed, LandedFile, rows_per_hour
from antenna_assets.ledger.closed_hours import close_passed, close_quiet, first_open_hour, quiet_hours_of
from antenna_assets.ledger.head import Head, move_head, read_head
from antenna_assets.ledger.lake_identity import require_same_lake
from antenna_assets.ledger.present import require_files
from antenna_assets.ledger.publications import LedgerError, committed_offsets, require_unexpired
from antenna_assets.storage.attempt import lake_watched
from antenna_assets.streaming.spark.planned_offsets import OffsetRange


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


def insert_batch(
    connection: psycopg.Connection,
    *,
    number: int,
    kind: Literal["stream", "replay"],
    clock: datetime,
    landed: Landed,
    low_watermark: datetime | None,
    now: datetime,
) -> None:
    """Write a batch with its files, rejections, hours and live sums, in the caller's transaction on the locked head.

    Args:
        now: when its hours got these rows, by PostgreSQL's clock.

    Raises:
        AttemptTooOld: the files were begun so long ago that a sweep may have taken them, or are gone.
        WrongLake: the lake is not the ledger's any more.
        LakeUnwritable: the lake fails.
        HourExpired: an hour's earlier files are past their retention.
    """
    # Under the head's lock: a sweep takes it, too, before it takes files. Both instants are this host's own: an age.
    if landed.begun is not None:
        require_young(f"batch {number}", begun=landed.begun, now=host_now())
    if landed.lake is not None:
        with lake_watched(landed.lake):
            require_same_lake(connection, landed.lake)
            require_files(landed, landed.lake)
    hours = rows_per_hour(landed)
    require_unexpired(connection, list(hours))
    connection.execute(
        "INSERT INTO ledger.batch"
        " (batch, kind, clock, rows, bytes, quarantined, late_rows, max_event_time, low_watermark)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            number,
            kind,
            clock,
            landed.rows,
            landed.bytes,
            sum(landed.rejections.values()),
            _late_rows(connection, hours),
            max(landed.event_times.values(), default=None),
            low_watermark,
        ],
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.rejection (batch, reason, rows) VALUES (%s, %s, %s)",
            [(number, reason, rows) for reason, rows in sorted(landed.rejections.items())],
        )
    _insert_files(connection, landed.files, number)
    _add_to_hours(connection, hours, now)
    commit_point("stream.commit.files")
    _add_to_live_tables(connection, landed.live, since=clock - LIVE_RETENTION)
    commit_point("stream.commit.live")


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


def _late_rows(connection: psycopg.Connection, hours: Mapping[datetime, tuple[int, int]]) -> int:
    closed = connection.execute(
        "SELECT hour FROM ledger.hour WHERE hour = ANY(%s) AND closed_at IS NOT NULL", [list(hours)]
    ).fetchall()
    return sum(hours[hour][0] for (hour,) in closed)


def _insert_files(connection: psycopg.Connection, files: Sequence[LandedFile], number: int) -> None:
    statement = "COPY ledger.file (path, kind, hour, rows, bytes, size, batch) FROM STDIN"
    with connection.cursor().copy(statement) as writer:
        for file in files:
            kind = "rejected" if file.hour is None else "landed"
            writer.write_row((file.path, kind, file.hour, file.rows, file.bytes, file.size, number))


def _add_to_hours(
    connection: psycopg.Connection, hours: Mapping[datetime, tuple[int, int]], now: datetime
) -> None:
    # In the order of the hours, as every writer of these rows: no two of them wait for each other.
    connection.execute(
        "INSERT INTO ledger.hour AS known (hour, rows, bytes, row_at)"
        " SELECT hour, rows, bytes, %s"
        " FROM unnest(%s::timestamptz[], %s::bigint[], %s::bigint[]) AS new (hour, rows, bytes)"
        " ORDER BY hour ON CONFLICT (hour) DO UPDATE"
        " SET rows = known.rows + excluded.rows, bytes = known.bytes + excluded.bytes, row_at = excluded.row_at",
        [now, list(hours), [rows for rows, _ in hours.values()], [bytes_ for _, bytes_ in hours.values()]],
    )


def _add_to_live_tables(
    connection: psycopg.Connection,
    live: Mapping[str, Sequence[tuple[datetime, str, int]]],
    *,
    since: datetime,
) -> None:
    # An older window may be swept already: a late event would bring back a part of it.
    for name, rows in live.items():
        table = LIVE_TABLES[name]
        parts = {
            "target": sql.Identifier(name),
            "staged": sql.Identifier(f"staged_{name}"),
            "key": sql.Identifier(table.key),
            "sum": sql.Identifier(table.sum_column),
        }
        connection.execute(
            sql.SQL("CREATE TEMPORARY TABLE {staged} (LIKE {target}) ON COMMIT DROP").format(**parts)
        )
        copy = sql.SQL("COPY {staged} (date, {key}, {sum}) FROM STDIN (FORMAT BINARY)").format(**parts)
        with connection.cursor().copy(copy) as writer:
            writer.set_types(["timestamptz", "text", "int8"])
            for row in rows:
                if row[0] >= since:
                    writer.write_row(row)
        connection.execute(
            sql.SQL(
                "INSERT INTO {target} AS known (date, {key}, {sum}) SELECT date, {key}, {sum} FROM {staged}"
                " ORDER BY date, {key} ON CONFLICT (date, {key}) DO UPDATE SET {sum} = known.{sum} + excluded.{sum}"
            ).format(**parts)
        )
