"""Replacing one hour of a serving table in PostgreSQL.

The rows come from the transforms; the fence and the publication are recorded by `ledger/publications.py`.
"""

from dataclasses import replace

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.domain.schema import ServingTable
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.certificate import certify
from antenna_assets.ledger.publications import (
    Publication,
    insert_publication,
    move_publication_head,
    require_nobody_forgotten,
)
from antenna_assets.publishing.digests import RowsDigest


def replace_hour(
    connection: psycopg.Connection, table: ServingTable, rows: pa.Table, publication: Publication
) -> None:
    """Replace the publication's hour of a table by `rows`, in one transaction.

    Its first statement is the fence. Readers see the old hour or the new one, never a part of either. The
    last of the hour's six publications issues its certificate.

    Args:
        rows: with the table's columns except `date`, which is the hour's first instant, UTC.

    Raises:
        Superseded: a newer generation of the hour is published.
        ForgottenMeanwhile: a user was forgotten since the connection was opened.
            After each of these nothing was changed.
    """
    names = [field.name for field in table.columns]
    target = sql.Identifier(table.name)
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        target, sql.SQL(", ").join(map(sql.Identifier, ["date", *names]))
    )
    commit_point("publish.table.computed")
    with connection.transaction():
        move_publication_head(connection, publication)
        require_nobody_forgotten(connection)
        commit_point("publish.table.fenced")
        connection.execute(sql.SQL("DELETE FROM {} WHERE date = %s").format(target), [publication.hour])
        commit_point("publish.table.deleted")
        with connection.cursor().copy(copy) as writer:
            writer.set_types(
                ["timestamptz", *("int8" if field.type == pa.int64() else "text" for field in table.columns)]
            )
            digest = RowsDigest()
            # Sorted by key: index pages are filled in order, and the digest needs an order.
            ordered = rows.sort_by(table.key)
            for row in zip(*(ordered[name].to_pylist() for name in names), strict=True):
                writer.write_row((publication.hour, *row))
                digest.add(row)
        commit_point("publish.table.copied")
        insert_publication(connection, replace(publication, content={"sha256": digest.sha256}))
        certify(connection, publication.hour, publication.generation)
    commit_point("publish.table.committed")
