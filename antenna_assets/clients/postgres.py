"""How PostgreSQL is opened and how its schema comes to be: connections, migrations and the seed.

What the tables mean is not here: the ledger's are in `ledger/publications.py`, those that people read in `publishing/serving.py`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import make_conninfo

from antenna_assets.clients.postgres_address import parts, place, to_primary
from antenna_assets.clients.postgres_errors import DatabaseError, passes, told
from antenna_assets.clients.postgres_fitness import require_own_sessions
from antenna_assets.clients.postgres_session import PERSON, Limits, pin

# An option that names Dagster's tables already, in one of PostgreSQL's two spellings.
_SEARCH_PATH = re.compile(r"(^|\s)(-c\s*|--)search[_-]path\s*=")


def connect(
    url: str, *, application: str = "antenna", limits: Limits = PERSON, patience: int = 5
) -> psycopg.Connection:
    """Open a connection in autocommit mode that pins all that it depends on (`postgres_session.py`).

    Raises:
        DatabaseError: PostgreSQL does not answer within `patience` seconds or refuses us. The message holds no password.
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
            f"PostgreSQL at {place(url)} cannot be used: {reason}; start it with `antenna up`, or correct ANTENNA_POSTGRES_URL"
        ) from error
    return connection


class _Cursor(psycopg.Cursor[Any]):
    """A cursor after whose every statement PostgreSQL measures how long nothing comes."""

    def executemany(self, *arguments: Any, **named: Any) -> None:
        """As psycopg's, whose pipeline ends with a message that no answer follows: there PostgreSQL stops to measure."""
        super().executemany(*arguments, **named)
        self.connection.execute("")


@contextmanager
def told_plainly() -> Iterator[None]:
    """A block in which an error of PostgreSQL that passes by itself is one sentence, and not libpq's text.

    Raises:
        DatabaseError: in the place of such an error.
    """
    try:
        yield
    except psycopg.Error as error:
        if not passes(error):
            raise
        raise DatabaseError(f"{told(error)}; try it again, Dagster's sensor does so by itself") from error


@contextmanager
def snapshot(connection: psycopg.Connection) -> Iterator[None]:
    """A block that changes nothing and in which all statements see the database as it is at its first one."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # Nobody waits for one who only reads, who may look at files for long in between.
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield


def dagster_url(address: str) -> str:
    """The same database, entered in the same way, with Dagster's own schema as the search path, if the address names none."""
    options = parts(address).get("options", "")
    if _SEARCH_PATH.search(options):
        return address
    if options or not address.startswith(("postgresql://", "postgres://")):
        return make_conninfo(address, options=f"{options} -c search_path=dagster".strip())
    schema = urlencode({"options": "-c search_path=dagster"}, quote_via=quote)
    return f"{address}{'&' if '?' in address else '?'}{schema}"
