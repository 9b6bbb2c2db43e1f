"""The one transaction in which a micro-batch comes to exist, and that of a heartbeat.

Files are written before, by `land.py`; hours are closed by `closing.py`; a replay's transaction is `commit_replay.py`.
Nothing is retried here: after any error the ledger is read again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import psycopg
from psycopg import sql

from antenna_assets.crash import commit_point
from antenna_assets.hours import hour_of, low_watermark
from antenna_assets.lake_identity import require_same_lake
from antenna_assets.ledger import LedgerError, committed_offsets, require_unexpired
from antenna_assets.lifetimes import LIVE_RETENTION, require_young
from antenna_assets.schema import LIVE_TABLES
from antenna_assets.streaming.attempt import lake_watched
from antenna_assets.streaming.closing import advance
from antenna_assets.streaming.head import Head, read_head
from antenna_assets.streaming.landed import Landed, LandedFile, rows_per_hour
from antenna_assets.streaming.plan import OffsetRange
from antenna_assets.streaming.present import require_files


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
    lagging: Sequence[int],
    lateness: timedelta,
    before_commit: Callable[[], None] = lambda: None,
) -> datetime | None:
    """Commit a micro-batch; returns the new low watermark.

    Args:
        number: one above the ledger's newest batch as the caller found it. Replays that committed since leave the batch a
            higher number: the one it gets is the head's next.
        clock: the wall clock that the batch's verdicts used.
        lagging: partitions in which Kafka holds messages beyond this batch.
        before_commit: called when only the COMMIT is left: after an error before that, nothing was committed for sure.

    Raises:
        NotContiguous: another batch of a stream was committed since; nothing was written.
        AttemptTooOld: the files were begun so long ago that a sweep may have taken them, or are gone; nothing was written.
        WrongLake: the lake is not the ledger's any more; nothing was written.
        HourExpired: an hour's earlier files are past their retention; nothing was written.
    """
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
        event_times = {**head.event_times}
        for partition, time in landed.event_times.items():
            event_times[partition] = max(time, event_times.get(partition, time))
        watermark = low_watermark(
            event_times, lagging=lagging, now=clock, lateness=lateness, previous=head.low_watermark
        )
        insert_batch(
            connection, number=number, kind="stream", clock=clock, landed=landed, low_watermark=watermark
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
        advance(connection, head, watermark, first_hour, "watermark")
        connection.execute(
            "UPDATE ledger.head SET batch = %s, event_times = %s, waiting_for = NULL, waiting_since = NULL"
            " WHERE topic = %s",
            [number, json.dumps({str(p): time.isoformat() for p, time in event_times.items()}), topic],
        )
        commit_point("stream.commit.last_statement")
        before_commit()
    commit_point("stream.commit.committed")
    return watermark


def commit_heartbeat(
    connection: psycopg.Connection, *, topic: str, batch: int, now: datetime, lateness: timedelta
) -> datetime | None:
    """Let the wall clock close hours, for a stream that is caught up and idle; returns the low watermark.

    Raises:
        NotContiguous: the stream committed a batch after `batch`, so the caller's look at Kafka is stale.
    """
    with connection.transaction():
        head = read_head(connection, topic, lock=True)
        if _stream_moved(connection, head, batch):
            raise NotContiguous(f"expected batch {batch} to be the newest of {topic}, found {head.batch}")
        watermark = max(now - lateness, head.low_watermark or now - lateness)
        advance(connection, head, watermark, head.first_hour, "clock")
        connection.execute(
            "UPDATE ledger.head SET heartbeat_at = %s, waiting_for = NULL, waiting_since = NULL WHERE topic = %s",
            [now, topic],
        )
        commit_point("stream.heartbeat.last_statement")
    commit_point("stream.heartbeat.committed")
    return watermark


def insert_batch(
    connection: psycopg.Connection,
    *,
    number: int,
    kind: Literal["stream", "replay"],
    clock: datetime,
    landed: Landed,
    low_watermark: datetime | None,
) -> None:
    """Write a batch with its files, rejections, hours and live sums, in the caller's transaction on the locked head.

    Raises:
        AttemptTooOld: the files were begun so long ago that a sweep may have taken them, or are gone.
        WrongLake: the lake is not the ledger's any more.
        LakeUnwritable: the lake fails.
        HourExpired: an hour's earlier files are past their retention.
    """
    # Under the head's lock: a sweep takes it, too, before it takes files.
    if landed.begun is not None:
        require_young(f"batch {number}", begun=landed.begun, now=datetime.now(UTC))
    if landed.lake is not None:
        require_same_lake(connection, landed.lake)
        with lake_watched(landed.lake):
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
    _add_to_hours(connection, hours)
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


def _add_to_hours(connection: psycopg.Connection, hours: Mapping[datetime, tuple[int, int]]) -> None:
    # In the order of the hours, as every writer of these rows: no two of them wait for each other.
    connection.execute(
        "INSERT INTO ledger.hour AS known (hour, rows, bytes)"
        " SELECT hour, rows, bytes FROM unnest(%s::timestamptz[], %s::bigint[], %s::bigint[]) AS new (hour, rows, bytes)"
        " ORDER BY hour ON CONFLICT (hour) DO UPDATE"
        " SET rows = known.rows + excluded.rows, bytes = known.bytes + excluded.bytes",
        [list(hours), [rows for rows, _ in hours.values()], [bytes_ for _, bytes_ in hours.values()]],
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
