"""Superset's sessions in the antennas' PostgreSQL: any address that libpq accepts, read-only, with pinned
settings.

Independent of Superset.
"""

import os
import re
from datetime import timedelta

from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

_SETTINGS = {
    "search_path": "public",
    "TimeZone": "UTC",
    "DateStyle": "ISO,MDY",
    "IntervalStyle": "postgres",
    "default_transaction_isolation": r"read\ committed",
    "default_transaction_read_only": "on",
    "row_security": "on",
    "statement_timeout": f"{timedelta(minutes=1).total_seconds():.0f}s",
    "lock_timeout": f"{timedelta(seconds=20).total_seconds():.0f}s",
    "idle_in_transaction_session_timeout": f"{timedelta(minutes=1).total_seconds():.0f}s",
    "idle_session_timeout": "0",
}
OPTIONS = " ".join(f"-c {name}={text}" for name, text in _SETTINGS.items())
"""As start-up options of the session they override those of a role or database, but not those of `_LAST`."""

# libpq sends the settings of these variables after the start-up options.
_LAST = ("PGTZ", "PGDATESTYLE", "PGGEQO")


# SQLAlchemy's own form of a URL.
_DRIVER = re.compile(r"^postgres(ql)?\+\w+://")


def forget_environment() -> None:
    """Remove the variables that change a session's settings, for this process and its children."""
    for name in _LAST:
        os.environ.pop(name, None)


def connect_arguments(address: str) -> dict[str, str]:
    """Return the arguments of `psycopg2.connect`.

    Raises:
        SystemExit: libpq cannot parse the address; the message shows nothing of it.
    """
    try:
        found = parse_dsn(_DRIVER.sub("postgresql://", address))
    except ProgrammingError:
        raise SystemExit(
            "usage_url: expected an address such as postgresql://user:password@host:5432/antenna,"
            " or host=... dbname=..., found one that PostgreSQL's client cannot read"
        ) from None  # Its message repeats the address.
    return {**found, "client_encoding": "UTF8", "options": OPTIONS}


def metadata_uri(address: str) -> str:
    """Return the address of Superset's own database for SQLAlchemy.

    Raises:
        SystemExit: the address has another form; the message has the form to use.
    """
    if address.startswith("postgres://"):
        return f"postgresql://{address.removeprefix('postgres://')}"
    if "://" not in address:
        raise SystemExit(
            "metadata_url: expected an address such as postgresql://user:password@host:5432/superset or"
            " sqlite:////path, found one without a scheme, which SQLAlchemy does not accept"
        )
    return address
