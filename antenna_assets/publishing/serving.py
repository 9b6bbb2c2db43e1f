"""The PostgreSQL tables that people read: the users, and replacing one hour of a table.

Which generation an hour is at is the ledger's matter; what is in the rows, the transforms'.
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
    move_head,
    require_nobody_forgotten,
)
from antenna_assets.publishing.digests import RowsDigest


def replace_hour(
    connection: psycopg.Connection, table: ServingTable, rows: pa.Table, publication: Publication
) -> None:
    """Replace the publication's hour of a table by `rows`, in one transaction whose first statement is the fence.

    Readers see the old hour or the new one, never a part. The rows are keyed by `date`, the hour's first instant. The
    last of the hour's six publications issues its certificate.

    Raises:
        Superseded: a newer generation of the hour is published; nothing was changed.
        ForgottenMeanwhile: a user was forgotten since the connection was opened; nothing was changed.
    """
    names = [field.name for field in table.columns]
    target = sql.Identifier(table.name)
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        target, sql.SQL(", ").join(map(sql.Identifier, ["date", *names]))
    )
    commit_point("publish.table.computed")
    with connection.transaction():
        move_head(connection, publication)
        require_nobody_forgotten(connection)
        commit_point("publish.table.fenced")
        connection.execute(sql.SQL("DELETE FROM {} WHERE date = %s").format(target), [publication.hour])
        commit_point("publish.table.deleted")
        with connection.cursor().copy(copy) as writer:
            writer.set_types(
                ["timestamptz", *("int8" if field.type == pa.int64() else "text" for field in table.columns)]
            )
            digest = RowsDigest()
            # Sorted by key: neighbours in the index are written together, and the digest needs an order.
            ordered = rows.sort_by(table.key)
            for row in zip(*(ordered[name].to_pylist() for name in names), strict=True):
                writer.write_row((publication.hour, *row))
                digest.add(row)
        commit_point("publish.table.copied")
        insert_publication(connection, replace(publication, content={"sha256": digest.sha256}))
        certify(connection, publication.hour, publication.generation)
    commit_point("publish.table.committed")
