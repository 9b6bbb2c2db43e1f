"""The serving tables, recomputed from the lake and compared row by row, and with the certificate.

Rows of hours that were never published are found here too.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from glob import escape

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.schema import ENRICHED_USAGE, HOURLY_TABLES, ServingTable
from antenna_assets.engines.transforms import transform
from antenna_assets.ledger.certificate import Certificate
from antenna_assets.ledger.user_hours import hours_without_users
from antenna_assets.publishing.csv_rows import CSV_SHA256, csv_of, stored_rows, stored_sha256
from antenna_assets.publishing.differing_rows import differing_rows, differing_select
from antenna_assets.publishing.digests import earlier_sha256
from antenna_assets.verify.difference import ABSENT, Difference, compare
from antenna_assets.verify.parquet import Parquet

SHOWN = 5
"""How many rows of one table and hour are named; the rest is counted."""


def table_differences(
    connection: psycopg.Connection,
    table: ServingTable,
    certificate: Certificate,
    usage: Sequence[str] | None,
    parquet: Parquet,
) -> list[Difference]:
    """Return what differs in an hour of a serving table; nothing if its users were dropped as a day.

    Args:
        usage: the files of `enriched_usage` to compute the table from; None if they differ themselves.
    """
    hour = certificate.hour
    if table.name == "bytes_agg_user_1h" and hours_without_users(connection, [hour]):
        return []
    key, certified = hour_key(hour), certificate.content["published"][table.name]
    wrong = [*_rows_within(connection, table, hour)]
    stored = stored_sha256(connection, table, hour)
    if usage is not None and _computed_sha256(table, hour, usage, parquet) != stored:
        wrong += _row_differences(connection, table, hour, parquet)
    if not wrong:
        rows, bytes_ = _sums(connection, table, hour)
        found = {"rows": rows, "bytes": bytes_, CSV_SHA256: stored}
        if CSV_SHA256 not in certified:
            found = {"rows": rows, "bytes": bytes_, "sha256": earlier_sha256(connection, table, hour)}
        wrong += compare(key, table.name, {name: certified[name] for name in found}, found)
    return wrong


def unpublished_rows(
    connection: psycopg.Connection, first: datetime | None, end: datetime | None
) -> Iterator[Difference]:
    """Yield the rows of hours for which their table was never published."""
    for name in HOURLY_TABLES:
        query = sql.SQL(
            "SELECT date_trunc('hour', date, 'UTC') AS hour, count(*) FROM {} WHERE"
            " date >= coalesce(%s::timestamptz, '-infinity') AND date < coalesce(%s::timestamptz, 'infinity')"
            " AND NOT EXISTS (SELECT FROM ledger.publication_head AS head"
            "  WHERE head.asset = %s AND head.hour = date_trunc('hour', date, 'UTC')) GROUP BY 1 ORDER BY 1"
        ).format(sql.Identifier(name))
        for hour, rows in connection.execute(query, [first, end, name]):
            yield Difference(
                hour_key(hour), f"{name}, rows of an hour that was never published", "0", f"{rows:,}"
            )


def _rows_within(connection: psycopg.Connection, table: ServingTable, hour: datetime) -> Iterator[Difference]:
    """Yield the rows whose date is within the hour and not its first instant."""
    query = sql.SQL(
        'SELECT date, {} FROM {} WHERE date > %s AND date < %s ORDER BY {} COLLATE "C", date'
    ).format(
        sql.SQL(", ").join(map(sql.Identifier, table.columns.names)),
        sql.Identifier(table.name),
        sql.Identifier(table.key),
    )
    for date, *row in connection.execute(query, [hour, hour + HOUR]):
        what = f"{table.name}, row {row[0]} at {date:%H:%M:%S.%f}"
        yield Difference(hour_key(hour), what, "no row within an hour", _shown(table, row[1:]))


def _sums(connection: psycopg.Connection, table: ServingTable, hour: datetime) -> tuple[int, int]:
    query = sql.SQL("SELECT count(*), coalesce(sum({}), 0) FROM {} WHERE date = %s").format(
        sql.Identifier(table.sum_column), sql.Identifier(table.name)
    )
    rows, bytes_ = connection.execute(query, [hour]).fetchall()[0]
    return rows, int(bytes_)


def _computed_sha256(table: ServingTable, hour: datetime, usage: Sequence[str], parquet: Parquet) -> str:
    """The digest of the rows that follow from `enriched_usage`; the view `computed` has them afterwards."""
    if usage:
        # The transformation names its input as a table. A view takes no parameters, but reads variables.
        parquet.connection.execute("SET VARIABLE usage = ?", [[escape(path) for path in usage]])
        parquet.connection.execute(
            "CREATE OR REPLACE TEMP VIEW enriched_usage AS"
            " SELECT * FROM read_parquet(getvariable('usage'), hive_partitioning = false)"
        )
    else:
        parquet.connection.register("no_usage", ENRICHED_USAGE.empty_table())
        parquet.connection.execute("CREATE OR REPLACE TEMP VIEW enriched_usage AS SELECT * FROM no_usage")
    columns = ", ".join(table.columns.names)
    parquet.connection.execute(
        f"CREATE OR REPLACE TEMP VIEW computed AS SELECT {columns} FROM ({transform(table.name)}\n)"  # noqa: S608
    )
    rows = parquet.connection.sql(f"SELECT * FROM computed ORDER BY {table.key}")  # noqa: S608
    digest = hashlib.sha256()
    for batch in rows.to_arrow_reader():
        digest.update(csv_of(hour, batch))
    return digest.hexdigest()


def _row_differences(
    connection: psycopg.Connection, table: ServingTable, hour: datetime, parquet: Parquet
) -> list[Difference]:
    """What differs between the view `computed` and the stored rows; some are named, the others counted."""
    stored = pa.RecordBatchReader.from_batches(table.columns, stored_rows(connection, table, hour))
    parquet.connection.register("stored_rows", stored)
    parquet.connection.execute("CREATE OR REPLACE TEMP TABLE stored AS SELECT * FROM stored_rows")
    parquet.connection.unregister("stored_rows")
    count, rows = differing_rows(parquet.connection.execute(differing_select(table, SHOWN)).fetchall())
    named = [
        Difference(
            hour_key(hour),
            f"{table.name}, {table.key} {row.key}",
            _shown(table, row.computed),
            _shown(table, row.stored),
        )
        for row in rows
    ]
    more = count - len(rows)
    if more:
        named.append(Difference(hour_key(hour), f"{table.name}, other rows that differ", "0", f"{more:,}"))
    return named


def _shown(table: ServingTable, values: Sequence | None) -> str:
    if values is None:
        return ABSENT
    return ", ".join(f"{name} {value}" for name, value in zip(table.columns.names[1:], values, strict=True))
