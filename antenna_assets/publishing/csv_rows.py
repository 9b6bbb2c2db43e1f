"""Rows between PostgreSQL and Arrow as CSV: what COPY takes and gives, and what an hour's digest is of.

PostgreSQL gives the same bytes for an hour: `COPY (SELECT * FROM bytes_agg_user_1h WHERE date = '2026-11-22
10:00Z' ORDER BY id COLLATE "C") TO STDOUT (FORMAT csv, FORCE_QUOTE *)`, in a session in UTC. So a digest is
computed anew with two programs that everybody has, and no row passes through Python.
"""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.domain.schema import ServingTable
from antenna_assets.storage.paths import lake_path

CSV_SHA256 = "csv_sha256"
"""The name of such a digest in a publication and in a certificate; earlier ones have `sha256`."""


# About 100,000 users: what is parsed at once.
_BLOCK_BYTES = 8 * 2**20


def columns_of(table: ServingTable) -> sql.Composed:
    """The columns of a row, in their order."""
    return sql.SQL(", ").join(map(sql.Identifier, ["date", *table.columns.names]))


def csv_of(hour: datetime, rows: pa.RecordBatch) -> pa.Buffer:
    """Rows of an hour as lines of CSV; each value is in quotes, a null is empty.

    Args:
        rows: with the table's columns, without `date`.
    """
    # As PostgreSQL writes it.
    date = pa.repeat(pa.scalar(f"{hour.astimezone(UTC):%Y-%m-%d %H:%M:%S}+00"), rows.num_rows)
    return csv_lines(pa.table([date, *rows.columns], ["date", *rows.schema.names]))


def csv_lines(rows: pa.Table) -> pa.Buffer:
    """Rows as lines of CSV; each value is in quotes, a null is empty.

    Args:
        rows: texts and integers, which PostgreSQL writes in the same way.
    """
    from pyarrow import csv

    lines = pa.BufferOutputStream()
    csv.write_csv(rows, lines, csv.WriteOptions(include_header=False, quoting_style="all_valid"))
    return lines.getvalue()


def rows_of(
    connection: psycopg.Connection, select: sql.Composed, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows of a query, a block of the COPY at a time.

    Args:
        schema: of the query's columns, in their order.
    """
    from pyarrow import csv

    copy = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, FORCE_QUOTE *, HEADER)").format(select)
    with connection.cursor().copy(copy) as blocks:
        yield from csv.open_csv(
            _Readable(blocks),
            read_options=csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=schema,
                include_columns=schema.names,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )


def write_parquet(target: str, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write rows to a parquet file, a batch at a time.

    Args:
        target: path or URI; an existing file is replaced.
    """
    from pyarrow import parquet as pq

    with (
        lake_path(target).open("wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        # A row group of the file for each.
        for batch in rows:
            writer.write_batch(batch.cast(schema))


class _Readable:
    """The result of a COPY as a file object that is read once, from start to end."""

    closed = False

    def __init__(self, copy: psycopg.Copy) -> None:
        self._copy = copy
        self._rest = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (data := self._copy.read()):
            self._rest += data
        found = bytes(self._rest[:size])
        del self._rest[:size]
        return found


def stored_rows(
    connection: psycopg.Connection, table: ServingTable, hour: datetime
) -> Iterator[pa.RecordBatch]:
    """The rows of an hour as a table holds them now: its columns without `date`, in any order."""
    names = sql.SQL(", ").join(map(sql.Identifier, table.columns.names))
    select = sql.SQL("SELECT {} FROM {} WHERE date = {}").format(
        names, sql.Identifier(table.name), sql.Literal(hour)
    )
    return rows_of(connection, select, table.columns)


def stored_sha256(connection: psycopg.Connection, table: ServingTable, hour: datetime) -> str:
    """The digest of an hour as a table holds it now."""
    copy = sql.SQL(
        'COPY (SELECT {columns} FROM {table} WHERE date = {hour} ORDER BY {key} COLLATE "C") TO STDOUT'
        " (FORMAT csv, FORCE_QUOTE *)"
    ).format(
        columns=columns_of(table),
        table=sql.Identifier(table.name),
        hour=sql.Literal(hour),
        key=sql.Identifier(table.key),
    )
    return copied_sha256(connection, copy)


def copied_sha256(connection: psycopg.Connection, copy: sql.Composed) -> str:
    """The digest of what a COPY ... TO STDOUT gives."""
    digest = hashlib.sha256()
    with connection.cursor().copy(copy) as blocks:
        for block in blocks:
            digest.update(block)
    return digest.hexdigest()
