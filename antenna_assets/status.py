"""What `antenna status` shows: lag, hours, generations and quarantine, read from the ledger and Kafka.

Nothing here changes anything.
"""

from collections.abc import Iterator
from datetime import datetime

import psycopg
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table

from antenna_assets.hours import hour_key
from antenna_assets.ledger import committed_offsets
from antenna_assets.requests import FailingHour
from antenna_assets.retries import read_failing_hours
from antenna_assets.schema import ASSETS
from antenna_assets.streaming.broker import Broker, BrokerError
from antenna_assets.streaming.waiting import stream_runs

HOURS_SHOWN = 24


def tables(
    connection: psycopg.Connection, topic: str, broker: Broker | None, no_broker: str = ""
) -> Iterator[RenderableType]:
    """The tables of the status, in the order of the data. Without Kafka the lag is unknown, and all else is shown.

    Args:
        broker: None if there is none to ask, for the reason that `no_broker` gives.
    """
    yield _lag(connection, topic, broker, no_broker)
    yield _stream(connection)
    yield _hours(connection)
    failing = read_failing_hours(connection)
    if failing:
        yield _failing(failing)
    yield _quarantine(connection)


def _lag(connection: psycopg.Connection, name: str, broker: Broker | None, no_broker: str) -> Table:
    columns = [Column(title, justify="right") for title in ("read up to", "Kafka's end", "lag")]
    table = Table("partition", *columns, title=f"Topic {name}")
    reason = no_broker
    try:
        if broker is not None:
            topic = broker.describe()
            done = broker.earliest(topic) | committed_offsets(connection, topic.id, topic.partitions)
            for partition, end in sorted(broker.next_offsets(topic).items()):
                table.add_row(
                    str(partition), f"{done[partition]:,}", f"{end:,}", f"{end - done[partition]:,}"
                )
            return table
    except BrokerError as error:
        reason = str(error)
    read = connection.execute(
        "SELECT partition, max(until_offset) FROM ledger.batch_offset JOIN ledger.head USING (topic, topic_id)"
        " WHERE topic = %s GROUP BY partition ORDER BY partition",
        [name],
    ).fetchall()
    for partition, offset in read:
        table.add_row(str(partition), f"{offset:,}", "unknown", "unknown")
    table.caption = escape(f"the lag is unknown: {reason}")
    return table


def _stream(connection: psycopg.Connection) -> Table:
    table = Table("what", Column("value", justify="right"), title="Stream")
    runs = stream_runs(connection)
    row = connection.execute(
        "SELECT waiting_for, waiting_since, batch, low_watermark, heartbeat_at, (SELECT sum(rows) FROM ledger.batch),"
        " (SELECT sum(late_rows) FROM ledger.batch) FROM ledger.head"
    ).fetchone()
    waiting_for, since, batch, watermark, heartbeat, rows, late = row or (
        None,
        None,
        0,
        None,
        None,
        None,
        None,
    )
    table.add_row("runs", "yes" if runs else "no")
    if waiting_for is not None:
        # The next commit clears it: of a stream that has ended it tells what it waited for then.
        table.add_row("waits for" if runs else "waited for", escape(waiting_for))
        table.add_row("since", _time(since))
    table.add_row("batches", f"{batch:,}")
    table.add_row("rows landed", f"{rows or 0:,}")
    table.add_row("late rows", f"{late or 0:,}")
    table.add_row("low watermark", _time(watermark))
    table.add_row("last heartbeat", _time(heartbeat))
    return table


def _hours(connection: psycopg.Connection) -> Table:
    counts = connection.execute(
        "SELECT count(*) FILTER (WHERE closed_at IS NULL), count(*) FILTER (WHERE closed_at IS NOT NULL) FROM ledger.hour"
    ).fetchone()
    opened, closed = counts or (0, 0)
    columns = [Column(name, justify="right") for name in ("rows", "bytes", "gen.", "published")]
    title = f"{opened:,} open and {closed:,} closed hours"
    table = Table(Column("hour", no_wrap=True), "state", "closed by", *columns, title=title)
    rows = connection.execute(
        "SELECT hour.hour, closed_by, hour.rows, hour.bytes, hour.generation,"
        " closed_at IS NOT NULL AND hour.rows IS DISTINCT FROM hour_generation.rows,"
        " (SELECT count(*) FROM ledger.publication_head AS head"
        "  WHERE head.hour = hour.hour AND head.generation = hour.generation)"
        " FROM ledger.hour LEFT JOIN ledger.hour_generation USING (hour, generation)"
        " ORDER BY hour.hour DESC LIMIT %s",
        [HOURS_SHOWN],
    ).fetchall()
    for hour, closed_by, count, bytes_, generation, dirty, published in reversed(rows):
        # Before the first generation an hour is just not run yet; after it, more rows make it dirty.
        state = "open" if closed_by is None else "dirty" if dirty and generation else "closed"
        table.add_row(
            hour_key(hour),
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


def _failing(hours: list[FailingHour]) -> Table:
    table = Table(
        "hour",
        Column("attempts", justify="right"),
        "last run",
        "ended",
        "next attempt",
        title="Failing hours",
    )
    for one in hours:
        table.add_row(
            hour_key(one.hour), str(one.attempts), one.run_id[:8], _time(one.ended), _time(one.next_attempt)
        )
    table.caption = "as of the sensor's last tick; Dagster's page of the run says why"
    return table


def _quarantine(connection: psycopg.Connection) -> Table:
    table = Table("reason", Column("messages", justify="right"), title="Quarantine")
    rows = connection.execute(
        # What was replayed has left the quarantine.
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
