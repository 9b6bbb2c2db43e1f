"""A batch, of the stream or of a replay: its plan, its content, and the rows of both in the ledger.

`streaming/` writes the files and makes the sums; `commit.py` and `replay.py` commit them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import psycopg
from psycopg import sql

from antenna_assets.clients.clock import host_now
from antenna_assets.domain.lifetimes import LIVE_RETENTION, require_young
from antenna_assets.domain.schema import LIVE_TABLES
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.generations import require_unexpired
from antenna_assets.ledger.lake_identity import require_same_lake
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.storage.attempt import lake_errors, require_files


@dataclass(frozen=True)
class AttemptFile:
    """A file of an attempt, `path` relative to the lake's root; `hour` is None for rejected messages."""

    path: str
    hour: datetime | None
    rows: int
    bytes: int
    size: int


@dataclass(frozen=True)
class BatchPlan:
    """What a micro-batch reads, fixed before it is read.

    Attributes:
        topic_id: as the ledger has it, see `head.kafka_id`.
        number: one above the ledger's newest batch when the plan was made. Replays that are committed in the
            meantime give the batch a higher number: the next one of the head.
        clock: PostgreSQL's clock, by which events are accepted or rejected.
    """

    topic: str
    topic_id: str
    number: int
    clock: datetime
    ranges: Sequence[OffsetRange]


@dataclass(frozen=True)
class BatchContent:
    """What a batch holds: files, counts and sums.

    Attributes:
        rejections: messages by the reason of their rejection.
        event_times: the largest accepted event time of each partition.
        first_event_time: the smallest accepted event time.
        live: the rows of each live table, as (window start, key, bytes).
        begun: when the attempt began to write files, by the clock of this host; None if it wrote none.
        lake: the root of the lake that has the files, to check them before they are committed.
    """

    files: Sequence[AttemptFile] = ()
    rejections: Mapping[str, int] = field(default_factory=dict)
    event_times: Mapping[int, datetime] = field(default_factory=dict)
    first_event_time: datetime | None = None
    live: Mapping[str, Sequence[tuple[datetime, str, int]]] = field(default_factory=dict)
    begun: datetime | None = None
    lake: str | None = None

    @property
    def rows(self) -> int:
        """Accepted rows."""
        return sum(file.rows for file in self.files if file.hour is not None)

    @property
    def bytes(self) -> int:
        """Accepted bytes, the sum over the events."""
        return sum(file.bytes for file in self.files if file.hour is not None)


def rows_per_hour(content: BatchContent) -> dict[datetime, tuple[int, int]]:
    """Rows and bytes of each hour, in the order of the hours."""
    hours: dict[datetime, tuple[int, int]] = {}
    for file in content.files:
        if file.hour is not None:
            rows, bytes_ = hours.get(file.hour, (0, 0))
            hours[file.hour] = (rows + file.rows, bytes_ + file.bytes)
    return dict(sorted(hours.items()))


def insert_batch(
    connection: psycopg.Connection,
    content: BatchContent,
    *,
    number: int,
    kind: Literal["stream", "replay"],
    clock: datetime,
    low_watermark: datetime | None,
    now: datetime,
) -> None:
    """Record a batch with its files, rejections, hours and live sums, under the lock of the head.

    Args:
        now: when its hours got these rows, by PostgreSQL's clock.

    Raises:
        AttemptTooOld: the attempt is so old that a sweep may have removed its files, or they are missing.
        WrongLake: the lake no longer belongs to this ledger.
        LakeUnwritable: the lake fails.
        HourExpired: an hour's earlier files are past their retention.
    """
    # Under the lock of the head, which a sweep takes before it removes files. Both instants are by this
    # host's clock.
    if content.begun is not None:
        require_young(f"batch {number}", begun=content.begun, now=host_now())
    if content.lake is not None:
        with lake_errors(content.lake):
            require_same_lake(connection, content.lake)
            require_files(content.lake, {file.path: file.size for file in content.files})
    hours = rows_per_hour(content)
    require_unexpired(connection, list(hours))
    connection.execute(
        "INSERT INTO ledger.batch"
        " (batch, kind, clock, rows, bytes, quarantined, late_rows, max_event_time, low_watermark)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            number,
            kind,
            clock,
            content.rows,
            content.bytes,
            sum(content.rejections.values()),
            _late_rows(connection, hours),
            max(content.event_times.values(), default=None),
            low_watermark,
        ],
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.rejection (batch, reason, rows) VALUES (%s, %s, %s)",
            [(number, reason, rows) for reason, rows in sorted(content.rejections.items())],
        )
    _insert_files(connection, content.files, number)
    _add_to_hours(connection, hours, now)
    commit_point("stream.commit.files")
    _add_to_live_tables(connection, content.live, since=clock - LIVE_RETENTION)
    commit_point("stream.commit.live")


def _late_rows(connection: psycopg.Connection, hours: Mapping[datetime, tuple[int, int]]) -> int:
    closed = connection.execute(
        "SELECT hour FROM ledger.hour WHERE hour = ANY(%s) AND closed_at IS NOT NULL", [list(hours)]
    ).fetchall()
    return sum(hours[hour][0] for (hour,) in closed)


def _insert_files(connection: psycopg.Connection, files: Sequence[AttemptFile], number: int) -> None:
    statement = "COPY ledger.file (path, kind, hour, rows, bytes, size, batch) FROM STDIN"
    with connection.cursor().copy(statement) as writer:
        for file in files:
            kind = "rejected" if file.hour is None else "landed"
            writer.write_row((file.path, kind, file.hour, file.rows, file.bytes, file.size, number))


def _add_to_hours(
    connection: psycopg.Connection, hours: Mapping[datetime, tuple[int, int]], now: datetime
) -> None:
    # In the order of the hours, as every writer of these rows: no deadlock.
    connection.execute(
        "INSERT INTO ledger.hour AS known (hour, rows, bytes, row_at)"
        " SELECT hour, rows, bytes, %s"
        " FROM unnest(%s::timestamptz[], %s::bigint[], %s::bigint[]) AS new (hour, rows, bytes)"
        " ORDER BY hour ON CONFLICT (hour) DO UPDATE SET rows = known.rows + excluded.rows,"
        "  bytes = known.bytes + excluded.bytes, row_at = excluded.row_at",
        [now, list(hours), [rows for rows, _ in hours.values()], [bytes_ for _, bytes_ in hours.values()]],
    )


def _add_to_live_tables(
    connection: psycopg.Connection,
    live: Mapping[str, Sequence[tuple[datetime, str, int]]],
    *,
    since: datetime,
) -> None:
    # An older window may have been swept: a late event would restore a part of it.
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
                "INSERT INTO {target} AS known (date, {key}, {sum})"
                " SELECT date, {key}, {sum} FROM {staged} ORDER BY date, {key}"
                " ON CONFLICT (date, {key}) DO UPDATE SET {sum} = known.{sum} + excluded.{sum}"
            ).format(**parts)
        )
