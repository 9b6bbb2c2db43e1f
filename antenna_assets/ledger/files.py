"""The rows of `ledger.file`: the files of an hour and of a generation, and the rejected ones of batches.

Readers open the files themselves. No file is read without such a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from antenna_assets.ledger.generations import Generation, hour_expired

FILES_OF_HOUR = """
    SELECT path, hour, rows, bytes, size, batch, batches FROM ledger.file
    WHERE kind = 'landed' AND hour = %(hour)s AND batch <= %(batch)s
"""
"""The files of an hour up to a batch."""

EXPIRED_FILES_OF_HOUR = FILES_OF_HOUR.replace("ledger.file", "ledger.expired_file")
"""Those of them that are past their retention."""

_ANY_BATCH = 2**63 - 1


@dataclass(frozen=True)
class FileRow:
    """A row of `ledger.file`.

    Attributes:
        path: relative to the lake's root.
        batch: the newest of `batches`.
        batches: those that it has rows of: several if small files were merged into it.
    """

    path: str
    rows: int
    bytes: int
    size: int
    batch: int
    batches: Sequence[int]


_COLUMNS = "path, rows, bytes, size, batch, ARRAY(SELECT ledger.batches_of(batch, batches)) AS batches"


def files_of_hour(
    connection: psycopg.Connection, hour: datetime, up_to_batch: int = _ANY_BATCH
) -> list[FileRow]:
    """The accepted files of an hour, by batch and path."""
    with connection.cursor(row_factory=class_row(FileRow)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM ({FILES_OF_HOUR}) AS file ORDER BY batch, path",  # noqa: S608
            {"hour": hour, "batch": up_to_batch},
        ).fetchall()


def generation_files(connection: psycopg.Connection, generation: Generation) -> list[str]:
    """Paths of a generation's files, relative to the lake's root. They stay for `GRACE_PERIOD` at least.

    Raises:
        HourExpired: some of them are past their retention.
    """
    # One statement, so that no file expires between two.
    rows = connection.execute(
        f"SELECT path, false AS expired, batch FROM ({FILES_OF_HOUR}) AS file"  # noqa: S608
        f" UNION ALL SELECT path, true, batch FROM ({EXPIRED_FILES_OF_HOUR}) AS file"
        " UNION ALL SELECT '', true, 0 FROM ledger.expired_hour WHERE hour = %(hour)s"
        " ORDER BY batch, path",
        {"hour": generation.hour, "batch": generation.up_to_batch},
    ).fetchall()
    if any(expired for _, expired, _ in rows):
        raise hour_expired(generation.hour)
    return [path for path, _, _ in rows]


def rejected_files(connection: psycopg.Connection, batches: Sequence[int] | None = None) -> list[FileRow]:
    """The files with rejected messages of these batches, or of all, by batch and path.

    Those of some batches may have messages of others as well.
    """
    of_batches = (
        " AND (batch = ANY(%(of)s)"
        " OR batches && (SELECT range_agg(int8range(of, of, '[]')) FROM unnest(%(of)s::bigint[]) AS of))"
    )
    with connection.cursor(row_factory=class_row(FileRow)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM ledger.file WHERE kind = 'rejected'"  # noqa: S608
            f"{'' if batches is None else of_batches} ORDER BY batch, path",
            {"of": None if batches is None else list(batches)},
        ).fetchall()
