"""The tables of `antenna status`: lag, stream, hours, failures, days and months, quarantine and alerts.

They are read from the ledger and Kafka.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from antenna_assets.clients.clock import database_now, wrong_here
from antenna_assets.clients.kafka_broker import Broker, BrokerError
from antenna_assets.domain.fitting_table import FittingTable, number_columns
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.safe_text import safe_text
from antenna_assets.domain.schema import ASSETS
from antenna_assets.ledger.blocked import blocked_by
from antenna_assets.ledger.failing import read_failing_hours
from antenna_assets.ledger.hours_to_publish import (
    Candidate,
    LeftOut,
    late_hours,
    newest_closed_hour,
    read_left_out,
)
from antenna_assets.ledger.partition_starts import WHERE_THE_LEDGER_ENDS
from antenna_assets.ledger.progress import next_to_read
from antenna_assets.ledger.republish_wait import waiting_hours
from antenna_assets.ledger.stream_lock import stream_runs
from antenna_assets.operations.alerts.overview import alerts_table
from antenna_assets.operations.failing_table import failing_table
from antenna_assets.operations.periods import period_tables
from antenna_assets.settings import duration_text, load_settings

HOURS_SHOWN = 24
"""Rows of a table of hours; the others are counted."""


@dataclass(frozen=True)
class _Progress:
    """Progress of the stream by the ledger's head and batches; the defaults are those before its first
    start."""

    waiting_for: str | None = None
    waiting_since: datetime | None = None
    held_by: str | None = None
    held_since: datetime | None = None
    host_clock: str | None = None
    batch: int = 0
    low_watermark: datetime | None = None
    heartbeat_at: datetime | None = None
    rows: int = 0
    late_rows: int = 0


def tables(
    connection: psycopg.Connection, topic: str, broker: Broker | None, no_broker: str = ""
) -> Iterator[RenderableType]:
    """Yield the tables in the order of the data. Without Kafka the lag is unknown, and everything else is
    shown.

    Args:
        broker: None if Kafka cannot be reached, for the reason in `no_broker`.
    """
    yield _lag(connection, topic, broker, no_broker)
    skipped = _skipped_offsets(connection, topic)
    if skipped:
        yield _never_read(skipped)
    yield _stream(connection)
    yield _hours(connection)
    late = late_hours(connection)
    if late:
        yield _late(connection, late)
    failing = read_failing_hours(connection)
    if failing:
        yield failing_table(
            "hour",
            {hour_key(one.hour): one for one in failing},
            title="Failing hours",
            repair="`antenna backfill --from HOUR`",
        )
    left_out = read_left_out(connection)
    if left_out:
        yield _left_out(left_out)
    yield from period_tables(connection)
    yield _quarantine(connection)
    alerts = alerts_table(connection)
    if alerts is not None:
        yield alerts


def _lag(connection: psycopg.Connection, name: str, broker: Broker | None, no_broker: str) -> Table:
    titles = ("read up to", "Kafka's end", "lag", "in or behind open transactions")
    table = FittingTable("partition", *number_columns(*titles), title=f"Topic {escape(safe_text(name))}")
    reason = no_broker
    try:
        if broker is not None:
            topic = broker.describe()
            done = next_to_read(connection, broker, topic)
            readable = broker.next_offsets(topic)
            for partition, end in sorted(broker.ends(topic).items()):
                held = end - max(done[partition], readable[partition])
                numbers = (done[partition], end, end - done[partition], max(0, held))
                table.add_row(str(partition), *(f"{number:,}" for number in numbers))
            return table
    except BrokerError as error:
        reason = str(error)
    read = connection.execute(
        "SELECT partition, max(until_offset) FROM ledger.batch_offset"
        " JOIN ledger.head USING (topic, topic_id)"
        " WHERE topic = %s GROUP BY partition ORDER BY partition",
        [name],
    ).fetchall()
    for partition, offset in read:
        table.add_row(str(partition), f"{offset:,}", *["unknown"] * 3)
    table.caption = escape(f"the lag is unknown: {reason}")
    return table


def _skipped_offsets(connection: psycopg.Connection, topic: str) -> list[tuple[int, int, int, str | None]]:
    """Partition, first offset, start offset and `--from` of the partitions whose first messages were never
    read."""
    return connection.execute(
        "SELECT partition, first_offset, start_offset, asked FROM ledger.partition_start"
        " JOIN ledger.head USING (topic, topic_id) WHERE topic = %s AND start_offset > 0"
        " AND asked IS DISTINCT FROM %s ORDER BY partition",
        [topic, WHERE_THE_LEDGER_ENDS],
    ).fetchall()


def _never_read(rows: list[tuple[int, int, int, str | None]]) -> Table:
    table = FittingTable("partition", "messages", "why", title="Never read")
    for partition, first, start, asked in rows:
        if first > 0:
            table.add_row(
                str(partition), f"0 to {first - 1:,}", "gone before the stream first saw the partition"
            )
        if asked is not None and start > first:
            table.add_row(
                str(partition), f"{first:,} to {start - 1:,}", f"antenna stream --from {escape(asked)}"
            )
    return table


def _stream(connection: psycopg.Connection) -> Table:
    table = FittingTable("what", "value", title="Stream")
    runs = stream_runs(connection)
    with connection.cursor(row_factory=class_row(_Progress)) as cursor:
        head = cursor.execute(
            "SELECT waiting_for, waiting_since, held_by, held_since, host_clock, batch, low_watermark,"
            " heartbeat_at,"
            " (SELECT coalesce(sum(rows), 0) FROM ledger.batch) AS rows,"
            " (SELECT coalesce(sum(late_rows), 0) FROM ledger.batch) AS late_rows FROM ledger.head"
        ).fetchone()
    progress = head or _Progress()
    table.add_row("runs", "yes" if runs else "no")
    blocked = blocked_by(connection) if runs else None
    if blocked is not None:
        table.add_row("waits for", escape(blocked))
    elif progress.waiting_for is not None:
        # Cleared by the next commit: of a stream that has ended it is what it waited for last.
        table.add_row("waits for" if runs else "waited for", escape(progress.waiting_for))
        table.add_row("since", _time(progress.waiting_since))
    if progress.held_by is not None:
        # As of the stream's newest look at Kafka.
        table.add_row(f"closing {'is' if runs else 'was'} held by", escape(progress.held_by))
        table.add_row("held since", _time(progress.held_since))
    here = wrong_here(connection)
    for whose, wrong in (("stream's clock", progress.host_clock), ("clock here", here)):
        if wrong is not None:
            table.add_row(whose, escape(wrong))
    table.add_row("batches", f"{progress.batch:,}")
    table.add_row("rows landed", f"{progress.rows:,}")
    table.add_row("late rows", f"{progress.late_rows:,}")
    watermark = _time(progress.low_watermark)
    if progress.low_watermark is not None and progress.low_watermark > database_now(connection):
        watermark += ", in the future: a clock was wrong; `antenna reopen` opens the hours again"
    table.add_row("low watermark", watermark)
    table.add_row("last heartbeat", _time(progress.heartbeat_at))
    return table


def _hours(connection: psycopg.Connection) -> Table:
    counts = connection.execute(
        "SELECT count(*) FILTER (WHERE closed_at IS NULL), count(*) FILTER (WHERE closed_at IS NOT NULL)"
        " FROM ledger.hour"
    ).fetchone()
    opened, closed = counts or (0, 0)
    columns = number_columns("rows", "bytes", "gen.", "published")
    title = f"{opened:,} open and {closed:,} closed hours"
    table = FittingTable("hour", "state", "closed by", *columns, title=title)
    rows = connection.execute(
        # An asset is not published while it is unfinished, or behind the users' version of the others.
        # The hour is text: its year may be one that Python does not have.
        "SELECT to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD-HH24:MI'), closed_by, rows, bytes, generation,"
        " closed_at IS NOT NULL AND dirty,"
        " (SELECT count(*) FROM ledger.publication_head AS head"
        "  WHERE head.hour = state.hour AND begun IS NULL"
        "  AND head.generation = state.generation AND coalesce(users_version >="
        "   (SELECT max(asked_users_version) FROM ledger.publication_head AS other"
        "    WHERE other.hour = state.hour), true))"
        " FROM ledger.hour_state AS state ORDER BY hour DESC LIMIT %s",
        [HOURS_SHOWN],
    ).fetchall()
    for hour, closed_by, count, bytes_, generation, dirty, published in reversed(rows):
        # Before its first generation an hour was just not published yet; after it, more rows make it dirty.
        state = "open" if closed_by is None else "dirty" if dirty and generation else "closed"
        table.add_row(
            hour,
            state,
            closed_by or "",
            f"{count:,}",
            f"{bytes_:,}",
            str(generation or "-"),
            f"{published} of {len(ASSETS)}",
        )
    if opened + closed > HOURS_SHOWN:
        table.caption = f"the newest {HOURS_SHOWN} hours"
    return table


def _late(connection: psycopg.Connection, hours: list[Candidate]) -> Table:
    settings, now = load_settings(), database_now(connection)
    longest = settings.republish_wait
    newest = newest_closed_hour(connection, first=settings.start, end=now)
    waiting = waiting_hours(hours, newest=newest, now=now, longest=longest)
    columns = number_columns("published rows", "late rows")
    table = FittingTable("hour", *columns, "since", "published again", title="Late rows that wait")
    for one in hours[:HOURS_SHOWN]:
        until = waiting.get(one.hour)
        table.add_row(
            hour_key(one.hour),
            f"{one.published_rows:,}",
            f"{one.late_rows:,}",
            _time(one.late_since),
            f"from {_time(until)}" if until else "at the sensor's next tick",
        )
    table.caption = (
        f"at most {duration_text(longest)} (ANTENNA_REPUBLISH_WAIT), the longer the larger the hour"
    )
    if len(hours) > HOURS_SHOWN:
        table.caption = f"the oldest {HOURS_SHOWN} of {len(hours):,} hours; {table.caption}"
    return table


def _left_out(hours: list[LeftOut]) -> Table:
    table = FittingTable("why", *number_columns("hours"), "the first of them", title="Hours left out")
    for one in hours:
        table.add_row(one.reason, f"{one.count:,}", ", ".join(one.hours))
    table.caption = "Dagster has no partition for them, so they are not run; as of the sensor's last tick"
    return table


def _quarantine(connection: psycopg.Connection) -> Table:
    table = FittingTable("reason", *number_columns("messages"), title="Quarantine")
    rows = connection.execute(
        # Replayed messages have left the quarantine.
        "SELECT reason, rejected - coalesce(replayed, 0) AS left_there"
        " FROM (SELECT reason, sum(rows) AS rejected FROM ledger.rejection GROUP BY reason) AS rejection"
        " LEFT JOIN (SELECT reason, count(*) AS replayed FROM ledger.replayed GROUP BY reason) AS replayed"
        " USING (reason) WHERE rejected > coalesce(replayed, 0) ORDER BY left_there DESC, reason"
    )
    for reason, count in rows.fetchall():
        table.add_row(reason, f"{count:,}")
    return table


def _time(value: datetime | None) -> str:
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M:%S} UTC"
