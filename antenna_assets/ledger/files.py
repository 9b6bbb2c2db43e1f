"""The rows of `ledger.file`: which files landed for an hour, for a generation, and with a batch.

The files themselves are opened by their readers, and no file is read without such a row.
"""

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from antenna_assets.ledger.generations import Generation, _hour_expired


def generation_files(connection: psycopg.Connection, generation: Generation) -> list[str]:
    """Paths of the generation's files, relative to the lake's root. They stay for `GRACE` at least.

    Raises:
        HourExpired: some of them are past their retention.
    """
    # One statement, so that no file expires between the two looks.
    rows = connection.execute(
        "SELECT path, false AS expired, batch FROM ledger.file WHERE kind = 'landed' AND hour = %(hour)s AND batch <= %(batch)s"
        " UNION ALL SELECT path, true, batch FROM ledger.expired_file WHERE hour = %(hour)s AND batch <= %(batch)s"
        " UNION ALL SELECT '', true, 0 FROM ledger.expired_hour WHERE hour = %(hour)s"
        " ORDER BY batch, path",
        {"hour": generation.hour, "batch": generation.up_to_batch},
    ).fetchall()
    if any(expired for _, expired, _ in rows):
        raise _hour_expired(generation.hour)
    return [path for path, _, _ in rows]


@dataclass(frozen=True)
class FileRow:
    """A row of `ledger.file`; `path` is relative to the lake's root."""

    path: str
    rows: int
    bytes: int
    size: int
    batch: int


def files_of_hour(connection: psycopg.Connection, hour: datetime, up_to_batch: int) -> list[FileRow]:
    """The files that landed for an hour."""
    with connection.cursor(row_factory=class_row(FileRow)) as cursor:
        return cursor.execute(
            "SELECT path, rows, bytes, size, batch FROM ledger.file"
            " WHERE kind = 'landed' AND hour = %s AND batch <= %s ORDER BY batch, path",
            [hour, up_to_batch],
        ).fetchall()


def files_of_batch(connection: psycopg.Connection, batch: int, kind: str) -> list[FileRow]:
    """All files of a batch of one kind, `landed` or `rejected`."""
    with connection.cursor(row_factory=class_row(FileRow)) as cursor:
        return cursor.execute(
            "SELECT path, rows, bytes, size, batch FROM ledger.file WHERE batch = %s AND kind = %s ORDER BY path",
            [batch, kind],
        ).fetchall()
