"""Rows on their way into a table of PostgreSQL: COPY, their digest, and what is counted of them."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from antenna_assets.ledger.certificate import UNKNOWN_USERS
from antenna_assets.publishing.csv_rows import CSV_SHA256


@dataclass(frozen=True)
class Copied:
    """What was copied.

    Attributes:
        bytes: the sum of the rows' sums.
        content: the digest of the CSV; of a table of all users also its users without an e-mail, and their
            bytes.
    """

    rows: int
    bytes: int
    content: Mapping[str, Any]


def copy_rows(
    connection: psycopg.Connection,
    table: str,
    columns: Sequence[str],
    rows: Iterable[pa.RecordBatch],
    *,
    csv_of: Callable[[pa.RecordBatch], pa.Buffer],
    sum_column: str,
) -> Copied:
    """Insert rows into a table, a batch at a time.

    Args:
        columns: of the lines that `csv_of` makes of a batch.

    Raises:
        EngineError: the rows cannot be computed.
    """
    digest = hashlib.sha256()
    count = bytes_ = unknown_users = unknown_bytes = 0
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor().copy(statement) as writer:
        for batch in rows:
            lines = csv_of(batch)
            writer.write(memoryview(lines))
            digest.update(lines)
            count += batch.num_rows
            bytes_ += _sum(batch[sum_column])
            if "email" in columns:
                unknown = batch.filter(pc.is_null(batch["email"]))
                unknown_users += unknown.num_rows
                unknown_bytes += _sum(unknown[sum_column])
    content: dict[str, Any] = {CSV_SHA256: digest.hexdigest()}
    if "email" in columns:
        content[UNKNOWN_USERS] = {"users": unknown_users, "bytes": unknown_bytes}
    return Copied(count, bytes_, content)


def _sum(column: pa.Array) -> int:
    return int(pc.sum(column).as_py() or 0)
