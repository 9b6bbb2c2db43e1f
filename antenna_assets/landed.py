"""What the ledger says of the landing of an hour: its files, and the batches that they came with.

The files themselves are not opened here; `verify_landed.py` does that.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row


@dataclass(frozen=True)
class LedgerFile:
    """A row of `ledger.file`; `path` is relative to the lake's root."""

    path: str
    rows: int
    bytes: int
    size: int
    batch: int


def landed_content(connection: psycopg.Connection, hour: datetime, up_to_batch: int) -> dict[str, Any]:
    """The part of a certificate that is about landing.

    `landed` counts the hour's own rows, those among them that came in a batch after the hour had closed as late.
    `batches`, `rejected` and `offsets` are of the whole batches that brought at least one row of the hour.
    """
    values = {"hour": hour, "batch": up_to_batch}
    with connection.cursor(row_factory=dict_row) as cursor:
        landed = cursor.execute(
            "SELECT count(*) AS files, coalesce(sum(file.rows), 0)::bigint AS rows,"
            " coalesce(sum(file.bytes), 0)::bigint AS bytes,"
            " coalesce(sum(file.rows) FILTER (WHERE batch.committed_at > hour.closed_at), 0)::bigint AS late_rows"
            " FROM ledger.file JOIN ledger.batch USING (batch) JOIN ledger.hour USING (hour)"
            " WHERE file.kind = 'landed' AND hour = %(hour)s AND batch <= %(batch)s",
            values,
        ).fetchone()
        batches = cursor.execute(
            "SELECT count(*) AS batches, coalesce(sum(rows), 0)::bigint AS rows,"
            " coalesce(sum(bytes), 0)::bigint AS bytes, coalesce(sum(quarantined), 0)::bigint AS quarantined,"
            " coalesce(sum(late_rows), 0)::bigint AS late_rows FROM ledger.batch WHERE batch IN"
            " (SELECT batch FROM ledger.file WHERE kind = 'landed' AND hour = %(hour)s AND batch <= %(batch)s)",
            values,
        ).fetchone()
        rejected = cursor.execute(
            "SELECT reason, sum(rows)::bigint AS rows FROM ledger.rejection WHERE batch IN"
            " (SELECT batch FROM ledger.file WHERE kind = 'landed' AND hour = %(hour)s AND batch <= %(batch)s)"
            " GROUP BY reason",
            values,
        ).fetchall()
        # Ranges of one partition that touch are one range.
        offsets = cursor.execute(
            "WITH marked AS (SELECT *, lag(until_offset) OVER of_partition IS DISTINCT FROM from_offset AS begins"
            "  FROM ledger.batch_offset WHERE batch IN"
            "  (SELECT batch FROM ledger.file WHERE kind = 'landed' AND hour = %(hour)s AND batch <= %(batch)s)"
            "  WINDOW of_partition AS (PARTITION BY topic_id, partition ORDER BY from_offset)"
            "), numbered AS (SELECT *, count(*) FILTER (WHERE begins) OVER"
            "  (PARTITION BY topic_id, partition ORDER BY from_offset) AS range FROM marked)"
            " SELECT topic, topic_id, partition, min(from_offset) AS from, max(until_offset) AS until"
            " FROM numbered GROUP BY topic, topic_id, partition, range ORDER BY topic_id, partition, min(from_offset)",
            values,
        ).fetchall()
    return {
        "landed": landed,
        "batches": batches,
        "rejected": {row["reason"]: row["rows"] for row in rejected},
        "offsets": offsets,
    }


def files_of_hour(connection: psycopg.Connection, hour: datetime, up_to_batch: int) -> list[LedgerFile]:
    """The files that landed for an hour."""
    with connection.cursor(row_factory=class_row(LedgerFile)) as cursor:
        return cursor.execute(
            "SELECT path, rows, bytes, size, batch FROM ledger.file"
            " WHERE kind = 'landed' AND hour = %s AND batch <= %s ORDER BY batch, path",
            [hour, up_to_batch],
        ).fetchall()


def files_of_batch(connection: psycopg.Connection, batch: int, kind: str) -> list[LedgerFile]:
    """All files of a batch of one kind, `landed` or `rejected`."""
    with connection.cursor(row_factory=class_row(LedgerFile)) as cursor:
        return cursor.execute(
            "SELECT path, rows, bytes, size, batch FROM ledger.file WHERE batch = %s AND kind = %s ORDER BY path",
            [batch, kind],
        ).fetchall()
