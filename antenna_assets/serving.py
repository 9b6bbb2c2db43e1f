"""The PostgreSQL tables that people read: the users, and replacing one hour of a table.

Which generation an hour is at is the ledger's matter; what is in the rows, the transforms'.
"""

from dataclasses import dataclass, replace

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.certificate import certify
from antenna_assets.contents import RowsDigest
from antenna_assets.crash import commit_point
from antenna_assets.ledger import Publication, insert_publication, move_head
from antenna_assets.schema import USERS, ServingTable


@dataclass(frozen=True)
class UserSnapshot:
    """All users as of one version; `users` has the columns of `schema.USERS`."""

    version: int
    users: pa.Table


def read_users(connection: psycopg.Connection) -> UserSnapshot:
    """Read the users and their version in one snapshot."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return users_of_snapshot(connection)


def users_of_snapshot(connection: psycopg.Connection) -> UserSnapshot:
    """Read the users and their version in the caller's snapshot."""
    version = connection.execute("SELECT version FROM ledger.users_version").fetchone()
    rows = connection.execute("SELECT id, name, email, quota FROM user_metadata").fetchall()
    if version is None:
        raise psycopg.DataError("ledger.users_version is empty: expected its one row")
    columns = list(zip(*rows, strict=True)) or [()] * len(USERS)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, USERS, strict=True)]
    return UserSnapshot(version[0], pa.Table.from_arrays(arrays, schema=USERS))


def replace_hour(
    connection: psycopg.Connection, table: ServingTable, rows: pa.Table, publication: Publication
) -> None:
    """Replace the publication's hour of a table by `rows`, in one transaction whose first statement is the fence.

    Readers see the old hour or the new one, never a part. The rows are keyed by `date`, the hour's first instant. The
    last of the hour's six publications issues its certificate.

    Raises:
        Superseded: a newer generation of the hour is published; nothing was changed.
    """
    names = [field.name for field in table.columns]
    target = sql.Identifier(table.name)
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        target, sql.SQL(", ").join(map(sql.Identifier, ["date", *names]))
    )
    with connection.transaction():
        move_head(connection, publication)
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
