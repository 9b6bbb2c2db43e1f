"""The claim that the live sums over an hour equal its hourly sums, except for rows that landed later."""

from datetime import datetime

import psycopg
from psycopg import sql

from antenna_assets.domain.hours import HOUR
from antenna_assets.domain.lifetimes import LIVE_RETENTION
from antenna_assets.domain.schema import ServingTable
from antenna_assets.ledger.generations import read_generation
from antenna_assets.verify.claims.tables import published
from antenna_assets.verify.claims.verdict import Verdict


def live_equals_hourly(
    connection: psycopg.Connection, live: ServingTable, hourly: ServingTable, hour: datetime, now: datetime
) -> Verdict:
    """Compare the live windows of an hour with its hourly sums, in the caller's snapshot: the stream keeps
    writing.

    Rows that landed after the hour's generation was sealed are in the live sums only. They are late if the
    low watermark had passed the hour by then; otherwise their windows were still open. There is no other
    reason to differ. If nothing landed afterwards, each key is compared, not only the total.
    """
    if hour < now - LIVE_RETENTION:
        return Verdict(
            True, f"not compared: live windows are kept for {LIVE_RETENTION.days} days", {"compared": 0}
        )
    generation, _ = published(connection, hourly.name, hour)
    late, open_ = map(int, _landed_after(connection, hour, generation))
    live_bytes, hourly_bytes, keys = map(int, _sums(connection, live, hourly, hour))
    difference = live_bytes - hourly_bytes
    other = difference - late - open_
    metrics = {
        "compared": 1,
        "live_bytes": live_bytes,
        "hourly_bytes": hourly_bytes,
        "late_bytes": late,
        "open_windows_bytes": open_,
        "other_bytes": other,
    }
    message = (
        f"live {live_bytes:,} bytes, hourly {hourly_bytes:,}:"
        f" {late:,} late, {open_:,} in open windows, {other:,} other"
    )
    if late or open_:
        return Verdict(other == 0, message, metrics)
    return Verdict(
        other == 0 and keys == 0, f"{message}; {keys:,} keys differ", {**metrics, "keys_that_differ": keys}
    )


def _landed_after(connection: psycopg.Connection, hour: datetime, generation: int) -> tuple[int, int]:
    """Return the bytes that landed after the generation: of late rows, and of rows in open windows."""
    return connection.execute(
        "SELECT coalesce(sum(file.bytes) FILTER (WHERE batch.low_watermark >= %(end)s), 0),"
        " coalesce(sum(file.bytes) FILTER"
        "  (WHERE batch.low_watermark IS NULL OR batch.low_watermark < %(end)s), 0)"
        " FROM ledger.file JOIN ledger.batch USING (batch)"
        " WHERE file.kind = 'landed' AND file.hour = %(hour)s AND batch > %(batch)s",
        {
            "hour": hour,
            "end": hour + HOUR,
            "batch": read_generation(connection, hour, generation).up_to_batch,
        },
    ).fetchall()[0]


def _sums(
    connection: psycopg.Connection, live: ServingTable, hourly: ServingTable, hour: datetime
) -> tuple[int, int, int]:
    """Return the bytes in the live table, the bytes in the hourly one, and how many keys differ."""
    query = sql.SQL(
        "WITH live AS (SELECT {key}, sum({sum}) AS bytes FROM {live}"
        "  WHERE date >= %(hour)s AND date < %(end)s GROUP BY {key}),"
        " hourly AS (SELECT {key}, {hourly_sum} AS bytes FROM {hourly} WHERE date = %(hour)s)"
        " SELECT coalesce(sum(live.bytes), 0), coalesce(sum(hourly.bytes), 0),"
        "  count(*) FILTER (WHERE live.bytes IS DISTINCT FROM hourly.bytes)"
        " FROM live FULL JOIN hourly USING ({key})"
    ).format(
        key=sql.Identifier(live.key),
        sum=sql.Identifier(live.sum_column),
        live=sql.Identifier(live.name),
        hourly_sum=sql.Identifier(hourly.sum_column),
        hourly=sql.Identifier(hourly.name),
    )
    return connection.execute(query, {"hour": hour, "end": hour + HOUR}).fetchall()[0]
