"""The results of the demonstration as tables for a terminal."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import psycopg
from psycopg import sql
from rich.table import Column, Table

from antenna_assets.domain.fitting_table import FittingTable
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.safe_text import safe_cell

_TOTALS = (
    ("Bytes by antenna", "antenna_id", "sum_antenna_bytes", "bytes_agg_antenna_1h"),
    ("Bytes by app", "app", "sum_app_bytes", "bytes_agg_app_1h"),
)


def result_tables(connection: psycopg.Connection, hours: Sequence[datetime]) -> Iterator[Table]:
    """Yield the bytes by antenna and by app, and the users over quota, of these hours."""
    for title, key, total, name in _TOTALS:
        table = FittingTable("hour", key, Column("bytes", justify="right"), title=title)
        query = sql.SQL("SELECT date, {}, {} FROM {} WHERE date = ANY(%s) ORDER BY date, 3 DESC").format(
            *map(sql.Identifier, (key, total, name))
        )
        for hour, text, bytes_ in connection.execute(query, [hours]).fetchall():
            table.add_row(hour_key(hour), safe_cell(text), f"{bytes_:,}")
        yield table
    yield _over_quota(connection, hours)


def _over_quota(connection: psycopg.Connection, hours: Sequence[datetime]) -> Table:
    """Users by name: an e-mail address does not belong on a screen."""
    numbers = [Column(name, justify="right") for name in ("bytes", "quota", "used")]
    table = FittingTable("hour", "user", *numbers, title="Users over quota")
    rows = connection.execute(
        "SELECT date, coalesce(name, over.id), sum_user_bytes, over.quota FROM users_over_quota_1h AS over"
        " LEFT JOIN user_metadata USING (id) WHERE date = ANY(%s)"
        " ORDER BY date, sum_user_bytes::numeric / greatest(over.quota, 1) DESC",
        [hours],
    )
    for hour, name, bytes_, quota in rows.fetchall():
        used = f"{bytes_ / quota:.0%}" if quota else "-"
        table.add_row(hour_key(hour), safe_cell(name), f"{bytes_:,}", f"{quota:,}", used)
    return table
