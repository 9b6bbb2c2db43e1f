"""The metrics of alerts and notices."""

from collections.abc import Iterator

import psycopg
from prometheus_client.core import GaugeMetricFamily, Metric

from antenna_assets.ledger.alert_watch import read_watch_progress
from antenna_assets.ledger.alerts import PERIODS
from antenna_assets.ledger.outbox import LEVELS


def alert_metrics(connection: psycopg.Connection) -> Iterator[Metric]:
    """The watch and open alerts; nothing where nobody uses alerts, so that nobody is told that none is
    raised."""
    progress = read_watch_progress(connection)
    if not progress.expected:
        return
    yield GaugeMetricFamily(
        "antenna_alert_watch_behind_batches",
        "Batches that `antenna alerts watch` has not looked at.",
        value=progress.behind,
    )
    yield GaugeMetricFamily(
        "antenna_alert_watch_looked_at_timestamp_seconds",
        "When `antenna alerts watch` looked last.",
        value=progress.looked_at.timestamp(),
    )
    found = {(one.period, one.level): one.alerts for one in progress.open}
    opened = GaugeMetricFamily(
        "antenna_open_alerts", "Alerts of periods that are not over.", labels=["period", "level"]
    )
    for period in PERIODS:
        for level in LEVELS:
            opened.add_metric([period, level], found.get((period, level), 0))
    yield opened


def notice_metrics(connection: psycopg.Connection) -> Iterator[Metric]:
    """Notices by channel. What was given up for a channel that is not in use any more is nobody's to
    repair."""
    labels = ["channel"]
    waiting = GaugeMetricFamily("antenna_outbox_waiting", "Notices that wait to be sent.", labels=labels)
    dead = GaugeMetricFamily("antenna_outbox_dead", "Notices that were given up.", labels=labels)
    oldest = GaugeMetricFamily(
        "antenna_outbox_oldest_waiting_seconds",
        "Age of the oldest that waits; 0 if none does.",
        labels=labels,
    )
    rows = connection.execute(
        "SELECT name, count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'dead'),"
        " extract(epoch FROM clock_timestamp() - min(created_at) FILTER (WHERE state = 'waiting'))::float8"
        " FROM alert_channel LEFT JOIN deliveries ON channel = name AND state <> 'delivered'"
        " WHERE removed_at IS NULL GROUP BY name ORDER BY name"
    ).fetchall()
    for name, waits, given_up, age in rows:
        waiting.add_metric([name], waits)
        dead.add_metric([name], given_up)
        oldest.add_metric([name], age or 0)
    yield from (waiting, dead, oldest)
