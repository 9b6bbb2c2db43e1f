"""Retention of notices, with what became of their deliveries, and of the alerts that they were about."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg

from antenna_assets.operations.sweep.retention import ROWS_AT_ONCE, Amount

_SETTLED_NOTICES = """
    SELECT number, octet_length(body) AS size FROM outbox
    WHERE created_at < %(before)s
        AND NOT EXISTS (SELECT FROM delivery WHERE outbox = number AND state = 'waiting')
"""

_DROP_NOTICES = f"""
    WITH settled AS ({_SETTLED_NOTICES} ORDER BY number LIMIT %(rows)s),
    deleted AS (DELETE FROM outbox USING settled WHERE outbox.number = settled.number RETURNING size)
    SELECT count(*), coalesce(sum(size), 0)::bigint FROM deleted
"""  # noqa: S608

# A cool-down is counted from an alert, so it keeps its alert.
_SETTLED_ALERTS = """
    SELECT id, period, starts, percent, octet_length(alert::text) AS size FROM alert
    WHERE resolved AND ends < least(%(before)s, %(now)s - (SELECT max(cool_down) FROM alert_rule))
"""

_DROP_ALERTS = f"""
    WITH settled AS ({_SETTLED_ALERTS} LIMIT %(rows)s),
    deleted AS (
        DELETE FROM alert USING settled
        WHERE (alert.id, alert.period, alert.starts, alert.percent)
            = (settled.id, settled.period, settled.starts, settled.percent)
        RETURNING size
    )
    SELECT count(*), coalesce(sum(size), 0)::bigint FROM deleted
"""  # noqa: S608


def drop_notices(
    connection: psycopg.Connection, *, keep: timedelta, now: datetime, dry_run: bool = False
) -> Amount:
    """Delete notices older than `keep` that were delivered, given up or owed to no channel.

    What waits for its delivery stays, however old it is.
    """
    values = {"before": now - keep, "rows": ROWS_AT_ONCE}
    return _drop(connection, _SETTLED_NOTICES, _DROP_NOTICES, values, dry_run=dry_run)


def drop_alerts(
    connection: psycopg.Connection, *, keep: timedelta, now: datetime, dry_run: bool = False
) -> Amount:
    """Delete alerts that are resolved and whose periods ended longer than `keep` ago.

    A restatement of such a period corrects nothing any more, and raises nothing, as all history. An alert
    that is not resolved stays: the watch has not seen the end of its period.
    """
    values = {"before": now - keep, "now": now, "rows": ROWS_AT_ONCE}
    return _drop(connection, _SETTLED_ALERTS, _DROP_ALERTS, values, dry_run=dry_run)


def _drop(
    connection: psycopg.Connection, settled: str, drop: str, values: Mapping[str, Any], *, dry_run: bool
) -> Amount:
    """Delete what is settled, `ROWS_AT_ONCE` at a time, or with `dry_run` count it."""
    if dry_run:
        counted = f"SELECT count(*), coalesce(sum(size), 0)::bigint FROM ({settled}) AS settled"  # noqa: S608
        return Amount(*connection.execute(counted.encode(), values).fetchall()[0])
    amount = Amount()
    while True:
        some = Amount(*connection.execute(drop.encode(), values).fetchall()[0])
        if not some.count:
            return amount
        amount += some
