"""Days and months in `antenna status` and in the metrics: what is published, is due again, or fails."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from prometheus_client.core import GaugeMetricFamily, Metric
from rich.table import Table

from antenna_assets.clients.rows import rows_of
from antenna_assets.domain.fitting_table import FittingTable, number_columns
from antenna_assets.domain.periods import Period
from antenna_assets.ledger.failing import read_failing_periods
from antenna_assets.operations.failing_table import failing_table


@dataclass(frozen=True)
class _Published:
    """The publications of days, or of months.

    Attributes:
        newest: the last one that is published.
        ended: the end of its last hour in all zones; that of the last published day in it, for months. None
            if no day is.
        again: how many have newer hours, days or quotas than their publication.
    """

    period: Period
    count: int
    newest: date
    ended: datetime | None
    again: int


def _published(connection: psycopg.Connection) -> list[_Published]:
    return rows_of(
        connection,
        _Published,
        "SELECT *, (SELECT max(end_hour) FROM ledger.period_state"
        "  WHERE period = 'day' AND day < ledger.next_period(found.period, newest)) AS ended"
        " FROM (SELECT period, count(*) AS count, max(day) AS newest,"
        "   count(*) FILTER (WHERE NOT settled) AS again FROM ledger.period_state GROUP BY period) AS found"
        " ORDER BY period",
    )


def period_tables(connection: psycopg.Connection) -> Iterator[Table]:
    """Yield what is published of days and months, and those that fail; nothing where there are none."""
    published = _published(connection)
    if published:
        table = FittingTable(
            "period", *number_columns("published", "due again"), "the newest", title="Days and months"
        )
        for one in published:
            table.add_row(one.period, f"{one.count:,}", f"{one.again:,}", f"{one.newest}")
        yield table
    failing = read_failing_periods(connection)
    if failing:
        yield failing_table(
            "period",
            {f"{one.period} {one.day}": one for one in failing},
            title="Failing days and months",
            repair="run the job `daily_usage` or `monthly_usage` for it",
        )


def period_metrics(connection: psycopg.Connection) -> Iterator[Metric]:
    """Those of published periods are missing before the first one is: nobody has to use days."""
    again = GaugeMetricFamily(
        "antenna_periods_due_again",
        "Published days and months with newer hours, days or quotas.",
        labels=["period"],
    )
    newest = GaugeMetricFamily(
        "antenna_newest_period_end_timestamp_seconds",
        "When the newest published day or month ended in all zones.",
        labels=["period"],
    )
    for one in _published(connection):
        again.add_metric([one.period], one.again)
        if one.ended is not None:
            newest.add_metric([one.period], one.ended.timestamp())
    failing = GaugeMetricFamily(
        "antenna_failing_periods", "Days and months whose runs failed.", labels=["stuck"]
    )
    found = read_failing_periods(connection)
    stuck = sum(one.stuck for one in found)
    failing.add_metric(["no"], len(found) - stuck)
    failing.add_metric(["yes"], stuck)
    yield from (again, newest, failing)
