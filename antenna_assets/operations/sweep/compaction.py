"""Compaction of the ledger: past the horizon, the stream's batches of an hour become one batch, and the names
of removed files become one sum an hour.

Sums, offset ranges and rejections stay as they were. Nothing here takes the head's lock.
"""

from datetime import datetime, timedelta

import psycopg

from antenna_assets.domain.lifetimes import GRACE_PERIOD, LONGEST_RUN
from antenna_assets.operations.sweep.retention import ROWS_AT_ONCE, Amount


def merge_batches(
    connection: psycopg.Connection, *, horizon: timedelta, now: datetime, dry_run: bool = False
) -> Amount:
    """Merge the stream's batches of each hour past the horizon into the newest of them; returns how many were
    merged away.

    Each hour is a transaction. Batches that still have files, replays and losses are not merged. Merging
    never crosses an hour, since quarantine and trust are reported by the hour in which messages were read.
    """
    values = {"before": now - horizon - LONGEST_RUN}
    hours = connection.execute(_HOURS_TO_MERGE, values).fetchall()
    count = sum(batches - 1 for _, batches in hours)
    if not dry_run:
        for hour, _ in hours:
            with connection.transaction():
                _merge(connection, hour)
    return Amount(count)


def forget_removed_files(connection: psycopg.Connection, *, now: datetime, dry_run: bool = False) -> Amount:
    """Replace the rows of files that were removed a grace period ago by one sum an hour; returns how many
    were replaced."""
    before = now - GRACE_PERIOD
    if dry_run:
        return Amount(
            connection.execute(
                "SELECT count(*) FROM ledger.expired_file WHERE removed_at <= %s", [before]
            ).fetchall()[0][0]
        )
    count = 0
    while True:
        ((deleted,),) = connection.execute(_FORGET, {"before": before, "rows": ROWS_AT_ONCE}).fetchall()
        if not deleted:
            return Amount(count)
        count += deleted


_HOUR = "date_bin('1 hour', committed_at, '2000-01-01 00:00:00+00'::timestamptz)"

_MERGEABLE = """kind = 'stream'
    AND NOT EXISTS (SELECT FROM ledger.file WHERE file.batch = batch.batch)
    AND NOT EXISTS (SELECT FROM ledger.file WHERE file.batches @> batch.batch)
    AND NOT EXISTS (SELECT FROM ledger.expired_file AS expired WHERE expired.batch = batch.batch)
    AND NOT EXISTS (SELECT FROM ledger.expired_file AS expired WHERE expired.batches @> batch.batch)"""

# Whole hours only: batches that an hour got later would have to be merged again.
_HOURS_TO_MERGE = f"""
    SELECT {_HOUR} AS hour, count(*) FROM ledger.batch
    WHERE {_HOUR} < date_bin('1 hour', %(before)s, '2000-01-01 00:00:00+00'::timestamptz) AND {_MERGEABLE}
    GROUP BY 1 HAVING count(*) > 1 ORDER BY 1
"""  # noqa: S608

_TO_MERGE = f"""
    SELECT batch FROM ledger.batch WHERE {_HOUR} = %s AND {_MERGEABLE} ORDER BY batch FOR UPDATE
"""  # noqa: S608

_MERGED = """
    UPDATE ledger.batch SET merged = sums.merged, clock = sums.clock, rows = sums.rows, bytes = sums.bytes,
        quarantined = sums.quarantined, late_rows = sums.late_rows, max_event_time = sums.max_event_time,
        low_watermark = sums.low_watermark
    FROM (
        SELECT sum(merged) AS merged, max(clock) AS clock, sum(rows) AS rows, sum(bytes) AS bytes,
            sum(quarantined) AS quarantined, sum(late_rows) AS late_rows,
            max(max_event_time) AS max_event_time, max(low_watermark) AS low_watermark
        FROM ledger.batch WHERE batch = ANY(%(batches)s)
    ) AS sums WHERE batch = %(newest)s
"""

# Adjacent ranges become one; a replay or a loss in between leaves two.
_RANGES = """
    WITH marked AS (
        SELECT *, lag(until_offset) OVER of_partition IS DISTINCT FROM from_offset AS begins
        FROM ledger.batch_offset WHERE batch = ANY(%(batches)s)
        WINDOW of_partition AS (PARTITION BY topic_id, partition ORDER BY from_offset)
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE begins)
            OVER (PARTITION BY topic_id, partition ORDER BY from_offset) AS range
        FROM marked
    )
    SELECT topic_id, partition, min(from_offset), max(until_offset) FROM numbered
    GROUP BY topic_id, partition, range
"""

_FORGET = """
    WITH chosen AS (
        SELECT path FROM ledger.expired_file WHERE removed_at <= %(before)s LIMIT %(rows)s
    ), deleted AS (
        DELETE FROM ledger.expired_file WHERE path IN (SELECT path FROM chosen) RETURNING *
    ), summed AS (
        INSERT INTO ledger.expired_hour AS known (hour, files, rows, bytes, size)
        SELECT hour, count(*), sum(rows), sum(bytes), sum(size) FROM deleted
        WHERE kind = 'landed' GROUP BY hour
        ON CONFLICT (hour) DO UPDATE SET files = known.files + excluded.files,
            rows = known.rows + excluded.rows, bytes = known.bytes + excluded.bytes,
            size = known.size + excluded.size
    )
    SELECT count(*) FROM deleted
"""


def _merge(connection: psycopg.Connection, hour: datetime) -> None:
    batches = [batch for (batch,) in connection.execute(_TO_MERGE.encode(), [hour])]
    if len(batches) < 2:
        return
    newest = batches[-1]
    values = {"batches": batches, "newest": newest}
    connection.execute(_MERGED, values)
    rejections = connection.execute(
        "SELECT reason, sum(rows) FROM ledger.rejection WHERE batch = ANY(%(batches)s) GROUP BY reason",
        values,
    ).fetchall()
    ranges = connection.execute(_RANGES, values).fetchall()
    connection.execute("DELETE FROM ledger.rejection WHERE batch = ANY(%(batches)s)", values)
    # A range's first row becomes the whole range: a new row would check its topic, and wait for the head's
    # lock.
    connection.execute(
        "DELETE FROM ledger.batch_offset WHERE batch = ANY(%s) AND (topic_id, partition, from_offset) <> ALL"
        " (SELECT topic_id, partition, from_offset FROM unnest(%s::text[], %s::int[], %s::bigint[])"
        "  AS kept (topic_id, partition, from_offset))",
        [batches, *([merged[column] for merged in ranges] for column in range(3))],
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE ledger.batch_offset SET until_offset = %s, batch = %s"
            " WHERE topic_id = %s AND partition = %s AND from_offset = %s",
            [
                (until_offset, newest, topic_id, partition, from_offset)
                for topic_id, partition, from_offset, until_offset in ranges
            ],
        )
        cursor.executemany(
            "INSERT INTO ledger.rejection (batch, reason, rows) VALUES (%s, %s, %s)",
            [(newest, reason, rows) for reason, rows in rejections],
        )
    connection.execute(
        "DELETE FROM ledger.batch WHERE batch = ANY(%(batches)s) AND batch <> %(newest)s", values
    )
