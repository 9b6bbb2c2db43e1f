"""The numbers of a report, read from the serving views only, so that the dashboards' role is enough. No
e-mail is read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from antenna_assets.clients.postgres import snapshot
from antenna_assets.operations.report.period import Period, ReportError

ANTENNAS, ON_THE_MAP, APPS, USERS, OVER = 8, 30, 10, 15, 25
"""How many of each are shown."""
OTHERS = "all others"
"""The name of the rest; an antenna of this name is counted in it."""

Rows = list[dict[str, Any]]

_HOURS = """SELECT hour, state, generation, certificate, rows, bytes, waiting_bytes, late_rows, quarantined,
    extract(epoch FROM delay)::float8 / 60 AS delay_minutes
FROM hour_trust WHERE hour >= %(begin)s AND hour < %(end)s ORDER BY hour"""

# Ranked over the whole period, so that an antenna keeps its colour.
_BY_ANTENNA = """WITH used AS ({used}),
ranked AS (
    SELECT antenna_id, row_number() OVER (ORDER BY sum(bytes) DESC, antenna_id) AS rank
    FROM used GROUP BY antenna_id
)
SELECT used.date, CASE WHEN rank <= %(antennas)s THEN antenna_id ELSE %(others)s END AS antenna,
    sum(bytes)::float8 AS bytes
FROM used JOIN ranked USING (antenna_id) GROUP BY 1, 2 ORDER BY 1, 2"""
_OF_HOURS = (
    "SELECT hour AS date, antenna_id, bytes FROM usage_by_antenna WHERE hour >= %(begin)s AND hour < %(end)s"
)
_OF_WINDOWS = """SELECT timestamp AS date, id AS antenna_id, value AS bytes FROM bytes
WHERE type = 'antenna_total_bytes' AND timestamp >= %(begin)s AND timestamp < %(end)s"""

_APPS = """SELECT app, sum(bytes)::float8 AS bytes,
    (sum(bytes) / nullif(sum(sum(bytes)) OVER (), 0))::float8 AS share
FROM usage_by_app WHERE hour >= %(begin)s AND hour < %(end)s
GROUP BY app ORDER BY 2 DESC, 1 LIMIT %(apps)s"""

_USERS = """SELECT id, coalesce(name, id) AS name, max(percent) AS percent, sum(bytes)::float8 AS bytes,
    count(*) FILTER (WHERE over_quota) AS hours_over
FROM usage_against_quota WHERE hour >= %(begin)s AND hour < %(end)s AND percent IS NOT NULL
GROUP BY id, name ORDER BY 3 DESC, 1 LIMIT %(users)s"""

_OVER = """SELECT hour, id, coalesce(name, id) AS name, bytes, quota, percent FROM over_quota_history
WHERE hour >= %(begin)s AND hour < %(end)s ORDER BY percent DESC NULLS FIRST, hour, id LIMIT %(over)s"""

_OVER_BY_HOUR = """SELECT hour, count(*) AS users FROM over_quota_history
WHERE hour >= %(begin)s AND hour < %(end)s GROUP BY hour ORDER BY hour"""

_REASONS = """SELECT reason, sum(messages)::bigint AS messages FROM quarantine_by_hour
WHERE hour >= %(begin)s AND hour < %(end)s GROUP BY reason ORDER BY 2 DESC, 1"""

_ALERTS = """SELECT percent, period, sum(alerts)::bigint AS raised,
    coalesce(sum(alerts) FILTER (WHERE confirmed), 0)::bigint AS confirmed,
    coalesce(sum(alerts) FILTER (WHERE state = 'taken back'), 0)::bigint AS taken_back
FROM alerts_by_hour WHERE hour >= %(begin)s AND hour < %(end)s GROUP BY 1, 2 ORDER BY 1, 2"""

_RUNNING = """SELECT * FROM (
    SELECT period, ends, id, coalesce(name, id) AS name, bytes, quota, percent,
        row_number() OVER (PARTITION BY period ORDER BY percent DESC NULLS FIRST, id) AS rank
    FROM running_against_quota WHERE period <> 'hour'
) AS ranked WHERE rank <= %(users)s ORDER BY period, rank"""


@dataclass(frozen=True)
class Figures:
    """The rows that a report shows, in order; times are aware, sizes in bytes.

    Attributes:
        hours: rows of `hour_trust`.
        antennas: `date` (an hour, or a window if the period is one hour), `antenna`, `bytes`.
        antenna_map: the same for more antennas, without the rest.
        users: known users with the highest share of their quota in an hour.
        over: users over quota, the furthest first.
        over_by_hour: number of users over quota.
        reasons: number of rejected messages by reason.
        alerts: those that were raised in the period, by percentage and whose quota.
        running: users with an alert in a day or month that runs as the report is made, furthest first.
    """

    hours: Rows
    antennas: Rows
    antenna_map: Rows
    apps: Rows
    users: Rows
    over: Rows
    over_by_hour: Rows
    reasons: Rows
    alerts: Rows
    running: Rows

    @property
    def totals(self) -> Mapping[str, int]:
        """Sums over the hours, and the number of hours in each state."""
        sums = {
            name: sum(row[name] for row in self.hours)
            for name in ("rows", "bytes", "late_rows", "quarantined")
        }
        return {**sums, **Counter(row["state"] for row in self.hours)}


def read_figures(connection: psycopg.Connection, period: Period) -> Figures:
    """Read the figures in one snapshot.

    Raises:
        ReportError: the ledger has no hour of the period.
    """
    values = {
        "begin": period.begin,
        "end": period.end,
        "antennas": ANTENNAS,
        "others": OTHERS,
        "apps": APPS,
        "users": USERS,
        "over": OVER,
    }

    def read(query: str, **more: int) -> Rows:
        with connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), {**values, **more}).fetchall()

    with snapshot(connection):
        hours = read(_HOURS)
        if not hours:
            raise ReportError(
                f"expected hours of {period.name} in the ledger, found none; `antenna status` lists the hours"
            )
        by_antenna = _BY_ANTENNA.format(used=_OF_WINDOWS if period.is_one_hour else _OF_HOURS)
        return Figures(
            hours=hours,
            antennas=read(by_antenna),
            antenna_map=[row for row in read(by_antenna, antennas=ON_THE_MAP) if row["antenna"] != OTHERS],
            apps=read(_APPS),
            users=read(_USERS),
            over=read(_OVER),
            over_by_hour=read(_OVER_BY_HOUR),
            reasons=read(_REASONS),
            alerts=read(_ALERTS),
            running=read(_RUNNING),
        )
