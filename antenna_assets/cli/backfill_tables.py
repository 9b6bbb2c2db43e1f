"""The changes that a backfill would make, as tables for a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Column, Table

from antenna_assets.domain.fitting_table import FittingTable
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.listing import and_more
from antenna_assets.domain.safe_text import safe_cell
from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.operations.backfill import SHOWN, HourChanges, TableChanges, shown

OVER_QUOTA = "users_over_quota_1h"


def hour_tables(hour: HourChanges) -> Iterator[RenderableType]:
    """Yield what would change in an hour: its rows, and the users whose over-quota status changes."""
    key = hour_key(hour.hour)
    if hour.refused is not None:
        yield f"{key}: {hour.refused}"
        return
    if not hour.tables:
        yield f"{key}: nothing would change"
        return
    others = {name: changes for name, changes in hour.tables.items() if name != OVER_QUOTA}
    yield _rows(key, others)
    if OVER_QUOTA in hour.tables:
        yield _over_quota(key, hour.tables[OVER_QUOTA])


def summary(hours: Sequence[HourChanges]) -> Table:
    """All hours in one table: their generations, and how many rows of each serving table would change."""
    columns = [Column(name.removesuffix("_1h"), justify="right") for name in HOURLY_TABLES]
    table = FittingTable(
        "hour",
        Column("generation", justify="right"),
        *columns,
        title="Rows that would change",
    )
    for hour in hours:
        before = "-" if hour.published is None else str(hour.published)
        counts = [f"{hour.tables[name].count if name in hour.tables else 0:,}" for name in HOURLY_TABLES]
        table.add_row(hour_key(hour.hour), f"{before} to {hour.next_generation}", *counts)
    return table


def _rows(key: str, tables: Mapping[str, TableChanges]) -> Table:
    table = FittingTable("table", "key", "now", "after", title=f"{key}: rows that would change")
    rows = [(HOURLY_TABLES[name], row) for name, changes in tables.items() for row in changes.shown]
    for columns, row in rows[:SHOWN]:
        cells = (shown(columns, row.before), shown(columns, row.after))
        table.add_row(columns.name, safe_cell(row.key), *cells)
    table.caption = and_more(sum(changes.count for changes in tables.values()), SHOWN) or None
    return table


def _over_quota(key: str, changes: TableChanges) -> Table:
    columns = HOURLY_TABLES[OVER_QUOTA]
    table = FittingTable("user", "status", "now", "after", title=f"{key}: users over quota")
    for row in changes.shown:
        status = (
            "newly over" if row.before is None else "no longer over" if row.after is None else "still over"
        )
        table.add_row(safe_cell(row.key), status, shown(columns, row.before), shown(columns, row.after))
    table.caption = and_more(changes.count, SHOWN) or None
    return table
