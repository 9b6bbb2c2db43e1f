"""The users as a parquet file for the engines, and their version."""

import psycopg
from psycopg import sql

from antenna_assets.clients.postgres import snapshot
from antenna_assets.domain.schema import USERS
from antenna_assets.errors import AntennaError
from antenna_assets.publishing.csv_rows import rows_of, write_parquet
from antenna_assets.storage.disk import write_failure_message
from antenna_assets.storage.paths import file_errors


class UsersUnwritable(AntennaError):
    """The file of users cannot be written; nothing was published."""


def write_users(connection: psycopg.Connection, target: str) -> int:
    """Write all users as one parquet file with the columns of `schema.USERS`; returns their version.

    Users and version come from one snapshot. The users pass through memory a block at a time.

    Args:
        target: path or URI; an existing file is replaced.

    Raises:
        UsersUnwritable: the file cannot be written, because the disk is full for example.
    """
    with snapshot(connection):
        version = users_version(connection)
        try:
            write_users_of_snapshot(connection, target)
        except file_errors() as error:
            raise UsersUnwritable(write_failure_message("the file of users", target, error)) from error
    return version


def users_version(connection: psycopg.Connection) -> int:
    """The version of the users in the caller's snapshot."""
    row = connection.execute("SELECT version FROM ledger.users_version").fetchone()
    if row is None:
        raise psycopg.DataError("ledger.users_version is empty: expected its one row")
    return row[0]


def write_users_of_snapshot(connection: psycopg.Connection, target: str) -> None:
    """Write all users in the caller's snapshot, as `write_users` does."""
    names = sql.SQL(", ").join(map(sql.Identifier, USERS.names))
    select = sql.SQL("SELECT {} FROM user_metadata").format(names)
    write_parquet(target, rows_of(connection, select, USERS), USERS)
