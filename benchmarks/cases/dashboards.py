"""The dashboards' queries over five years, 100 million rows of users, and the cost of replacing an hour."""

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR
from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.ledger.publications import Publication
from antenna_assets.ledger.user_hours import make_user_days
from antenna_assets.publishing.serving import HourOfTable, replace_hours
from antenna_assets.settings import PREFIX
from benchmarks.context import Context
from benchmarks.history_data import TO_PUBLISH, fill_ledger
from benchmarks.outcome import Claim, Measured, Outcome, Table
from benchmarks.world import fresh, last_full_hour

TITLE = "Dashboards over five years"
HOURS, USERS, ANTENNAS, APPS, OVER = 43_800, 2_300, 50, 20, 20
"""Of each hour: 100.7 million rows of users in all."""
HOURS_AT_ONCE = 730
TIMES = 5

QUERIES = {
    "bytes by antenna, a week": """SELECT hour, antenna_id, bytes, source FROM usage_by_antenna
        WHERE hour > %(newest)s - interval '168 hours' ORDER BY 1, 2""",
    "the top of an hour": "SELECT * FROM top_talkers WHERE hour = %(newest)s ORDER BY kind, rank",
    "users against quota, a day": """SELECT id, max(percent) FROM usage_against_quota
        WHERE hour > %(newest)s - interval '24 hours' GROUP BY id ORDER BY 2 DESC LIMIT 15""",
    "apps' share, a month": """SELECT app, sum(bytes) FROM usage_by_app
        WHERE hour > %(newest)s - interval '720 hours' GROUP BY app ORDER BY 2 DESC""",
    "over quota, a month": """SELECT hour, count(*), max(percent) FROM over_quota_history
        WHERE hour > %(newest)s - interval '720 hours' GROUP BY hour ORDER BY hour""",
    "compared, a week": """SELECT * FROM usage_compared
        WHERE hour > %(newest)s - interval '168 hours' ORDER BY hour""",
    "trust, a week": "SELECT * FROM hour_trust WHERE hour > %(newest)s - interval '168 hours' ORDER BY hour",
    "hours by state, five years": "SELECT state, count(*) FROM hour_trust GROUP BY state",
    "a user, five years": "SELECT hour, bytes FROM usage_by_user WHERE id = %(user)s ORDER BY hour",
}


def measure(context: Context) -> Outcome:
    """Two databases have all hours in the ledger; one has the rows of all of them, one those of two days."""
    hours = 240 if context.short else HOURS
    newest = last_full_hour()
    full, small = (
        fresh(context.environment(), context.folder / name)[f"{PREFIX}POSTGRES_URL"]
        for name in ("full", "small")
    )
    for url in (full, small):
        fill_ledger(url, newest, hours)
    with connect(small) as connection:
        _fill(connection, newest, TO_PUBLISH + 48)
    context.say(f"inserting {hours * USERS:,} rows of users")
    began = time.perf_counter()
    with connect(full) as connection:
        _fill(connection, newest, hours)
        context.say(f"inserted in {time.perf_counter() - began:.0f} s")
        connection.execute("SET ROLE antenna_dashboards")
        asked = {"newest": newest - TO_PUBLISH * HOUR, "user": "user-1"}
        queries = [
            Measured(name, [_seconds(partial(_rows, connection, query, asked)) for _ in range(TIMES)])
            for name, query in QUERIES.items()
        ]
    longest = max(queries, key=lambda query: query.spread.median)
    replaced = [
        Measured(name, _replacements(url, newest - TO_PUBLISH * HOUR))
        for name, url in (("beside five years", full), ("beside two days", small))
    ]
    ratio = replaced[0].spread.median / replaced[1].spread.median
    return Outcome(
        [
            Table(f"what dashboards ask, {hours * USERS:,} rows of users", "s", queries),
            Table(f"an hour of {USERS:,} users replaced", "s", replaced),
        ],
        [
            Claim(
                "100 million rows: what dashboards ask takes at most 1 s",
                f"{longest.spread.median:.2f} s ({longest.contender})",
                longest.spread.median <= 1,
            ),
            Claim(
                "an hour replaced beside them: at most 1.5x as beside two days",
                f"{ratio:.2f}x",
                ratio <= 1.5,
            ),
        ],
        notes=[
            "The hours of users are partitioned by day. Each key begins with the hour, so the rows of an hour"
            " are stored together, and hours are written in order. Queries run as the dashboards' role on one"
            " connection, with their rows fetched."
        ],
    )


def _fill(connection: psycopg.Connection, newest: datetime, hours: int) -> None:
    connection.execute(
        "INSERT INTO user_metadata SELECT 'user-' || n, 'name ' || n, n || '@example.org', 40000"
        " FROM generate_series(1, %s) AS n",
        [USERS],
    )
    rows = {
        "bytes_agg_user_1h": ("'user-' || n, n || '@example.org', {bytes}", USERS),
        "bytes_agg_antenna_1h": ("'antenna-' || n, {bytes}", ANTENNAS),
        "bytes_agg_app_1h": ("'app-' || n, {bytes}", APPS),
        "users_over_quota_1h": ("'user-' || n, n || '@example.org', 40000, 40001 + n", OVER),
    }
    # No pattern from user to user, and different in each hour.
    bytes_ = "abs(hashint8(n * 1000000 + extract(epoch FROM hour)::bigint / 3600)) %% 50000"
    oldest, published = newest - (hours - 1) * HOUR, newest - TO_PUBLISH * HOUR
    for first in range(0, hours, HOURS_AT_ONCE):
        begin = oldest + first * HOUR
        end = min(begin + HOURS_AT_ONCE * HOUR, published + HOUR)
        make_user_days(connection, [begin + number * HOUR for number in range(HOURS_AT_ONCE)])
        for table, (columns, keys) in rows.items():
            connection.execute(
                sql.SQL(
                    "INSERT INTO {} SELECT hour, {} FROM ledger.hour, generate_series(1::bigint, %s) AS n"
                ).format(sql.Identifier(table), sql.SQL(columns.format(bytes=bytes_)))
                + sql.SQL(" WHERE hour >= %s AND hour < %s ORDER BY 1, 2"),
                [keys, begin, end],
            )
    for table in rows:
        connection.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))


def _rows(connection: psycopg.Connection, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = connection.execute(query.encode(), values).fetchall()
    if not found:
        raise AssertionError(f"expected rows of {query}, found none")
    return found


def _replacements(url: str, newest: datetime) -> list[float]:
    """Replace the newest published hours, each by other rows at its next generation; returns the seconds."""
    table = HOURLY_TABLES["bytes_agg_user_1h"]
    numbers = count()
    with connect(url) as connection:

        def replacement() -> None:
            hour = newest - next(numbers) * HOUR
            connection.execute(
                "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
                " VALUES (%s, 2, 1, 0, 0)",
                [hour],
            )
            rows = pa.table(
                [[f"user-{n}" for n in range(USERS)], [None] * USERS, range(USERS)], schema=table.columns
            )
            version = Publication(table.name, hour, 2, 0, 0, 1, "run")
            replace_hours(connection, table, [HourOfTable(version, rows.to_batches(), None)])

        replacement()
        return [_seconds(replacement) for _ in range(4 * TIMES)]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
