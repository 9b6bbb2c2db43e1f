"""Retention of notices: those that nothing waits for, with what became of their deliveries."""

from datetime import datetime, timedelta

import psycopg

from antenna_assets.operations.sweep.retention import ROWS_AT_ONCE, Amount

_SETTLED = """
    SELECT number, octet_length(body) AS size FROM outbox
    WHERE created_at < %(before)s
        AND NOT EXISTS (SELECT FROM delivery WHERE outbox = number AND state = 'waiting')
"""


def drop_notices(
    connection: psycopg.Connection, *, keep: timedelta, now: datetime, dry_run: bool = False
) -> Amount:
    """Delete notices older than `keep` that were delivered, given up or owed to no channel.

    What waits for its delivery stays, however old it is.
    """
    values = {"before": now - keep, "rows": ROWS_AT_ONCE}
    if dry_run:
        counted = f"SELECT count(*), coalesce(sum(size), 0)::bigint FROM ({_SETTLED}) AS settled"  # noqa: S608
        return Amount(*connection.execute(counted.encode(), values).fetchall()[0])
    amount = Amount()
    deleted = f"""
        WITH settled AS ({_SETTLED} ORDER BY number LIMIT %(rows)s),
        deleted AS (DELETE FROM outbox USING settled WHERE outbox.number = settled.number RETURNING size)
        SELECT count(*), coalesce(sum(size), 0)::bigint FROM deleted
    """  # noqa: S608
    while True:
        some = Amount(*connection.execute(deleted.encode(), values).fetchall()[0])
        if not some.count:
            return amount
        amount += some
