"""Connections to PostgreSQL: opening one, a read-only snapshot, and the address for Dagster."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import make_conninfo

from antenna_assets.clients.postgres_address import parts, place, to_primary
from antenna_assets.clients.postgres_errors import DatabaseError, error_line, is_retryable
from antenna_assets.clients.postgres_fitness import require_own_sessions
from antenna_assets.clients.postgres_session import PERSON, Limits, pin

# An option that sets the search path already, in one of PostgreSQL's two spellings.
_SEARCH_PATH = re.compile(r"(^|\s)(-c\s*|--)search[_-]path\s*=")


def connect(
    url: str, *, application: str = "antenna", limits: Limits = PERSON, patience: int = 5
) -> psycopg.Connection:
    """Open a connection in autocommit mode, with the session settings of `postgres_session.py`.

    Raises:
        DatabaseError: PostgreSQL does not answer within `patience` seconds or denies access. The message
            contains no password.
        DatabaseUnfit: a pooler gives each transaction another session.
    """
    try:
        connection = psycopg.connect(
            to_primary(url),
            autocommit=True,
            connect_timeout=patience,
            application_name=application,
            client_encoding="UTF8",
            cursor_factory=_Cursor,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
        try:
            info = connection.info
            own = pin(info.server_version, limits, only_of=info.backend_pid)
            if connection.execute(own.encode()).fetchone() is None:
                require_own_sessions(connection, url)
                connection.execute(pin(info.server_version, limits).encode())
        except BaseException:
            connection.close()
            raise
    except psycopg.Error as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise DatabaseError(
            f"PostgreSQL at {place(url)} cannot be used: {reason}; "
            "start it with `antenna up`, or correct ANTENNA_POSTGRES_URL"
        ) from error
    return connection


class _Cursor(psycopg.Cursor[Any]):
    """A cursor after whose statements the idle-in-transaction timeout of PostgreSQL runs."""

    def executemany(self, *arguments: Any, **named: Any) -> None:
        """As psycopg's, and an empty statement: the end of a pipeline does not start the timeout."""
        super().executemany(*arguments, **named)
        self.connection.execute("")


@contextmanager
def transient_errors_explained() -> Iterator[None]:
    """Convert retryable errors of PostgreSQL into a `DatabaseError` with advice.

    Raises:
        DatabaseError: the block failed with a retryable error.
    """
    try:
        yield
    except psycopg.Error as error:
        if not is_retryable(error):
            raise
        raise DatabaseError(
            f"{error_line(error)}; try again; Dagster's sensor retries automatically"
        ) from error


@contextmanager
def snapshot(connection: psycopg.Connection) -> Iterator[None]:
    """A read-only transaction in which all statements see the snapshot of the first one."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # A reader blocks nobody, and may read files for long between two statements.
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield


def dagster_url(address: str) -> str:
    """The address with Dagster's schema as the search path, unless it sets one."""
    options = parts(address).get("options", "")
    if _SEARCH_PATH.search(options):
        return address
    if options or not address.startswith(("postgresql://", "postgres://")):
        return make_conninfo(address, options=f"{options} -c search_path=dagster".strip())
    schema = urlencode({"options": "-c search_path=dagster"}, quote_via=quote)
    return f"{address}{'&' if '?' in address else '?'}{schema}"
