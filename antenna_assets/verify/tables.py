"""The serving tables, recomputed from the lake and compared row by row, and with the certificate.

Rows of hours that were never published are found here too.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from glob import escape

import psycopg
from psycopg import sql

from antenna_assets.domain.differences import differences
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.schema import ENRICHED_USAGE, HOURLY_TABLES, ServingTable
from antenna_assets.engines.transforms import transform
from antenna_assets.ledger.certificate import Certificate
from antenna_assets.publishing.digests import RowsDigest
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
    """Return what differs in an hour of a serving table.

    Args:
        usage: the files of `enriched_usage` to compute the table from; None if they differ themselves.
    """
    key, certified = hour_key(certificate.hour), certificate.content["published"][table.name]
    wrong: list[Difference] = []
    rows = []
    for date, *row in _stored(connection, table, certificate.hour):
        if date == certificate.hour:
            rows.append(tuple(row))
        else:
            what = f"{table.name}, row {row[0]} at {date:%H:%M:%S.%f}"
            wrong.append(Difference(key, what, "no row within an hour", _shown(table, row[1:])))
    if usage is not None:
        wrong += _row_differences(key, table, _computed(table, usage, parquet), rows)
    if not wrong:
        digest = RowsDigest()
        for stored in rows:
            digest.add(stored)
        sum_ = sum(row[table.columns.get_field_index(table.sum_column)] for row in rows)
        wrong += compare(
            key,
            table.name,
            {name: certified[name] for name in ("rows", "bytes", "sha256")},
            {"rows": len(rows), "bytes": sum_, "sha256": digest.sha256},
        )
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


def _stored(connection: psycopg.Connection, table: ServingTable, hour: datetime) -> list[tuple]:
    # Ordered by the bytes of UTF-8, as the digest is.
    query = sql.SQL(
        'SELECT date, {} FROM {} WHERE date >= %s AND date < %s ORDER BY {} COLLATE "C", date'
    ).format(
        sql.SQL(", ").join(map(sql.Identifier, table.columns.names)),
        sql.Identifier(table.name),
        sql.Identifier(table.key),
    )
    return connection.execute(query, [hour, hour + HOUR]).fetchall()


def _computed(table: ServingTable, usage: Sequence[str], parquet: Parquet) -> list[tuple]:
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
    return parquet.connection.execute(
        f"SELECT {columns} FROM ({transform(table.name)}\n) ORDER BY {table.key}"  # noqa: S608
    ).fetchall()


def _row_differences(
    hour: str, table: ServingTable, computed: Sequence[tuple], stored: Sequence[tuple]
) -> list[Difference]:
    if list(computed) == list(stored):
        return []
    expected, found = ({key: values for key, *values in rows} for rows in (computed, stored))
    wrong = [*differences(expected, found)]
    named = [
        Difference(hour, f"{table.name}, {table.key} {key}", _shown(table, left), _shown(table, right))
        for key, left, right in wrong[:SHOWN]
    ]
    if len(wrong) > SHOWN:
        named.append(
            Difference(hour, f"{table.name}, other rows that differ", "0", f"{len(wrong) - SHOWN:,}")
        )
    return named


def _shown(table: ServingTable, values: Sequence | None) -> str:
    if values is None:
        return ABSENT
    return ", ".join(f"{name} {value}" for name, value in zip(table.columns.names[1:], values, strict=True))
