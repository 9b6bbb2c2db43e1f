"""How far the watch over alerts has come, for `antenna status` and the metrics."""

from dataclasses import dataclass
from datetime import datetime

import psycopg

from antenna_assets.clients.advisory_locks import ALERTS, is_held
from antenna_assets.ledger.alerts import read_alert_head


@dataclass(frozen=True)
class OpenAlerts:
    """How many alerts of one period and level are open."""

    period: str
    level: str
    alerts: int


@dataclass(frozen=True)
class WatchProgress:
    """How far it has come.

    Attributes:
        runs: a watch holds the lock, also while it waits for the lake.
        behind: batches that are committed and that it has not looked at.
        looked_at: when it looked last, by PostgreSQL's clock.
        channels: a channel is in use.
        open: the open alerts, the most urgent first; nothing of a period and level without any.
    """

    runs: bool
    behind: int
    looked_at: datetime
    channels: bool
    open: list[OpenAlerts]

    @property
    def expected(self) -> bool:
        """Whether somebody relies on the watch."""
        return self.runs or self.channels or bool(self.open)


def read_watch_progress(connection: psycopg.Connection) -> WatchProgress:
    """Read it; the roles of the stream and of the metrics are enough."""
    head = read_alert_head(connection)
    newest, channels = connection.execute(
        "SELECT (SELECT max(batch) FROM ledger.head),"
        " EXISTS (SELECT FROM alert_channel WHERE removed_at IS NULL)"
    ).fetchall()[0]
    opened = connection.execute(
        "SELECT period, level, sum(alerts)::bigint FROM open_alerts GROUP BY period, level"
        " ORDER BY min(percent) DESC, period"
    ).fetchall()
    return WatchProgress(
        runs=is_held(connection, ALERTS),
        # A ledger that was restored from a backup may have fewer batches.
        behind=max((newest or 0) - head.batch, 0),
        looked_at=head.looked_at,
        channels=channels,
        open=[OpenAlerts(*row) for row in opened],
    )
