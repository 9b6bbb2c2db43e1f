"""The claim that the live sums over an hour equal its hourly sums, except for rows that landed later."""

from collections.abc import Sequence
from datetime import datetime

import psycopg
from psycopg import sql

from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.lifetimes import LIVE_RETENTION
from antenna_assets.domain.schema import ServingTable
from antenna_assets.ledger.generations import read_generations
from antenna_assets.ledger.live_tables import live_table_kept_from
from antenna_assets.verify.claims.tables import published
from antenna_assets.verify.claims.verdict import Verdict


def live_equals_hourly(
    connection: psycopg.Connection,
    live: ServingTable,
    hourly: ServingTable,
    hours: Sequence[datetime],
    now: datetime,
) -> dict[datetime, Verdict]:
    """Compare the live windows of hours with their hourly sums, in the caller's snapshot: the stream keeps
    writing.

    Rows that landed after an hour's generation was sealed are in the live sums only. They are late if the
    low watermark had passed the hour by then; otherwise their windows were still open. There is no other
    reason to differ. If nothing landed afterwards, each key is compared, not only the total.

    Raises:
        NotInTable: an hour whose live windows are kept was never published.
    """
    kept_from = live_table_kept_from(connection, live.name)
    kept = [hour for hour in hours if kept_from is not None and hour >= max(kept_from, now - LIVE_RETENTION)]
    if kept_from is None:
        reason = f"ANTENNA_LIVE leaves {live.name} out"
    elif kept_from > now - LIVE_RETENTION:
        reason = f"ANTENNA_LIVE names {live.name} since {hour_key(kept_from)}"
    else:
        reason = f"live windows are kept for {LIVE_RETENTION.days} days"
    verdicts = {
        hour: Verdict(True, f"not compared: {reason}", {"compared": 0}) for hour in hours if hour not in kept
    }
    at = {hour: generation for hour, (generation, _) in published(connection, hourly.name, kept).items()}
    landed = _landed_after(connection, at)
    for hour, live_bytes, hourly_bytes, keys in _sums(connection, live, hourly, kept):
        late, open_ = landed.get(hour, (0, 0))
        verdicts[hour] = _verdict(int(live_bytes), int(hourly_bytes), keys, late, open_)
    return verdicts


def _verdict(live_bytes: int, hourly_bytes: int, keys: int, late: int, open_: int) -> Verdict:
    other = live_bytes - hourly_bytes - late - open_
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


def _landed_after(connection: psycopg.Connection, at: dict[datetime, int]) -> dict[datetime, tuple[int, int]]:
    """The bytes that landed after the generation of each hour: of late rows, and of rows in open windows."""
    sealed = read_generations(connection, at)
    rows = connection.execute(
        "SELECT hour, coalesce(sum(file.bytes) FILTER (WHERE low_watermark >= hour + interval '1 hour'), 0),"
        " coalesce(sum(file.bytes) FILTER"
        "  (WHERE low_watermark IS NULL OR low_watermark < hour + interval '1 hour'), 0)"
        " FROM ledger.file JOIN ledger.batch USING (batch)"
        " JOIN unnest(%s::timestamptz[], %s::bigint[]) AS sealed (hour, up_to_batch) USING (hour)"
        " WHERE file.kind = 'landed' AND batch > up_to_batch GROUP BY hour",
        [[*sealed], [generation.up_to_batch for generation in sealed.values()]],
    )
    return {hour: (int(late), int(open_)) for hour, late, open_ in rows}


def _sums(
    connection: psycopg.Connection, live: ServingTable, hourly: ServingTable, hours: Sequence[datetime]
) -> list[tuple]:
    """Each hour, the bytes in the live table, those in the hourly one, and how many keys differ."""
    query = sql.SQL(
        # Hour by hour, by the keys' indexes: all hours together are sorted on disk, by three processes.
        "SELECT hour, live, hourly, keys FROM unnest(%(hours)s::timestamptz[]) AS hour CROSS JOIN LATERAL ("
        "  SELECT coalesce(sum(live), 0) AS live, coalesce(sum(hourly), 0) AS hourly,"
        "   count(*) FILTER (WHERE live IS DISTINCT FROM hourly) AS keys"
        "  FROM (SELECT {key}, sum(live) AS live, sum(hourly) AS hourly"
        "   FROM (SELECT {key}, {sum} AS live, NULL::bigint AS hourly FROM {live}"
        "     WHERE date >= hour AND date < hour + interval '1 hour'"
        "    UNION ALL SELECT {key}, NULL, {hourly_sum} FROM {hourly}"
        # The second condition prunes partitions before any is planned.
        "     WHERE date = hour AND date = ANY(%(hours)s)) AS sums GROUP BY {key}) AS keys"
        ") AS compared"
    ).format(
        key=sql.Identifier(live.key),
        sum=sql.Identifier(live.sum_column),
        live=sql.Identifier(live.name),
        hourly_sum=sql.Identifier(hourly.sum_column),
        hourly=sql.Identifier(hourly.name),
    )
    return connection.execute(query, {"hours": list(hours)}).fetchall()
