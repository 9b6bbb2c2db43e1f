"""Closing hours: what the low watermark passed is closed, in the transaction that moved the watermark.

What the watermark is, is in `hours.py`; who moves it, in `commit.py` and `commit_replay.py`.
"""

from datetime import datetime

import psycopg

from antenna_assets.hours import closed_before
from antenna_assets.streaming.head import Head


def advance(
    connection: psycopg.Connection,
    head: Head,
    watermark: datetime | None,
    first_hour: datetime | None,
    closed_by: str,
) -> None:
    """Record the watermark and close the hours that end before it, quiet ones from `first_hour` on included."""
    connection.execute(
        "UPDATE ledger.head SET low_watermark = %s, first_hour = %s WHERE topic = %s",
        [watermark, first_hour, head.topic],
    )
    if watermark is None:
        return
    end = closed_before(watermark)
    connection.execute(
        "UPDATE ledger.hour SET closed_at = clock_timestamp(), closed_by = %s WHERE closed_at IS NULL AND hour < %s",
        [closed_by, end],
    )
    if first_hour is None:
        return
    # Hours before the old watermark are closed already, but for those that a first batch has just brought into view.
    start = first_hour
    if head.first_hour is not None and head.low_watermark is not None:
        start = max(first_hour, closed_before(head.low_watermark))
    connection.execute(
        "INSERT INTO ledger.hour (hour, closed_at, closed_by)"
        " SELECT hour, clock_timestamp(), %s"
        " FROM generate_series(%s::timestamptz, %s::timestamptz - interval '1 hour', interval '1 hour') AS hour"
        " ON CONFLICT (hour) DO NOTHING",
        [closed_by, start, end],
    )
