"""The table of alerts in `antenna status`: the watch, open alerts, and notices that are not delivered."""

from datetime import timedelta

import psycopg

from antenna_assets.clients.clock import database_now
from antenna_assets.domain.counted import counted
from antenna_assets.domain.fitting_table import FittingTable
from antenna_assets.ledger.alert_watch import read_watch_progress
from antenna_assets.ledger.outbox import LEVELS

LATE = timedelta(minutes=1)
"""A watch looks once a second; one that has not for so long is shown as late."""


def alerts_table(connection: psycopg.Connection) -> FittingTable | None:
    """The table; None where nobody uses alerts: no channel, no open alert and no watch."""
    progress = read_watch_progress(connection)
    if not progress.expected:
        return None
    table = FittingTable("what", "value", title="Alerts")
    late = database_now(connection) - progress.looked_at
    looked = f"{progress.looked_at:%Y-%m-%d %H:%M:%S} UTC"
    if late > LATE:
        looked = f"[yellow]{looked}, {late.total_seconds():,.0f} s ago[/yellow]"
    table.add_row("watch runs", "yes" if progress.runs else "[red]no[/red]")
    table.add_row("last look", looked)
    table.add_row("behind the stream", counted(progress.behind, "batch", "batches"))
    for level in reversed(LEVELS):
        of_level = [f"{one.alerts:,} ({one.period})" for one in progress.open if one.level == level]
        table.add_row(f"open, {level}", ", ".join(of_level) or "none")
    waiting, dead = connection.execute(
        "SELECT count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'dead')"
        " FROM deliveries WHERE channel_in_use AND state <> 'delivered'"
    ).fetchall()[0]
    table.add_row("notices waiting", f"{waiting:,}")
    table.add_row("notices given up", f"[red]{dead:,}[/red]" if dead else "0")
    if not progress.runs:
        table.caption = "nothing is raised until `antenna alerts watch` runs"
    return table
