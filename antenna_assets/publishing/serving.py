"""The PostgreSQL tables that people read: the users, and replacing one hour of a table.

Which generation an hour is at is the ledger's matter; what is in the rows, the transforms'.
"""

from dataclasses import replace

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.clients.postgres import snapshot
from antenna_assets.domain.schema import USERS, ServingTable
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.certificate import certify
from antenna_assets.ledger.publications import (
    Publication,
    insert_publication,
    move_head,
    require_nobody_forgotten,
)
from antenna_assets.publishing.digests import RowsDigest
from antenna_assets.storage.disk import unwritable
from antenna_assets.storage.paths import file_errors, lake_path


class UsersUnwritable(AntennaError):
    """The users could not be handed over to the engine; nothing was published."""


# Some 100,000 users: what is parsed at once, and a row group of the file.
_BLOCK_BYTES = 8 * 2**20


def write_users(connection: psycopg.Connection, target: str) -> int:
    """Write all users as one parquet file with the columns of `schema.USERS`; returns their version.

    Users and version are of one snapshot, and pass through memory a block at a time, however many they are.

    Args:
        target: path or URI; an existing file is replaced.

    Raises:
        UsersUnwritable: the file cannot be written, for want of space for example.
    """
    with snapshot(connection):
        version = users_version(connection)
        try:
            write_users_of_snapshot(connection, target)
        except file_errors() as error:
            raise UsersUnwritable(unwritable("the file of users", target, error)) from error
    return version


def users_version(connection: psycopg.Connection) -> int:
    """The version of the users in the caller's snapshot."""
    row = connection.execute("SELECT version FROM ledger.users_version").fetchone()
    if row is None:
        raise psycopg.DataError("ledger.users_version is empty: expected its one row")
    return row[0]


def write_users_of_snapshot(connection: psycopg.Connection, target: str) -> None:
    """Write all users in the caller's snapshot, as `write_users` does."""
    from pyarrow import csv
    from pyarrow import parquet as pq

    names = sql.SQL(", ").join(map(sql.Identifier, USERS.names))
    select = sql.SQL("COPY (SELECT {} FROM user_metadata) TO STDOUT (FORMAT csv, HEADER)").format(names)
    with connection.cursor().copy(select) as copy:
        blocks = csv.open_csv(
            _Readable(copy),
            read_options=csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=USERS),
        )
        with (
            lake_path(target).open("wb") as file,
            pq.ParquetWriter(file, USERS, compression="zstd") as writer,
        ):
            for block in blocks:
                writer.write_batch(block.cast(USERS))


class _Readable:
    """PostgreSQL's answer to a COPY as a file that is read once, from its beginning to its end."""

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
