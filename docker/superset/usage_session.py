"""How Superset enters the antennas' PostgreSQL: by any address that libpq takes, in a session that reads and pins its settings.

It knows nothing of Superset, and stands in no other module's way.
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
"""As the session's start-up options they come after what a role or a database says, but not after `_LAST`."""

# libpq sends these after the start-up options.
_LAST = ("PGTZ", "PGDATESTYLE", "PGGEQO")


# SQLAlchemy's own form of a URL.
_DRIVER = re.compile(r"^postgres(ql)?\+\w+://")


def forget_environment() -> None:
    """Let no variable change a session's settings, in this process and those that it starts."""
    for name in _LAST:
        os.environ.pop(name, None)


def connect_arguments(address: str) -> dict[str, str]:
    """What psycopg2 is to be called with.

    Raises:
        SystemExit: libpq cannot read the address; the message shows nothing of it.
    """
    try:
        found = parse_dsn(_DRIVER.sub("postgresql://", address))
    except ProgrammingError:
        raise SystemExit(
            "usage_url: expected an address such as postgresql://user:password@host:5432/antenna, or host=... dbname=...,"
            " found one that PostgreSQL's client cannot read"
        ) from None  # Its text repeats the address.
    return {**found, "client_encoding": "UTF8", "options": OPTIONS}


def metadata_uri(address: str) -> str:
    """Superset's own database as SQLAlchemy takes it.

    Raises:
        SystemExit: it is an address of another form; the message has the form to use.
    """
    if address.startswith("postgres://"):
        return f"postgresql://{address.removeprefix('postgres://')}"
    if "://" not in address:
        raise SystemExit(
            "metadata_url: expected an address such as postgresql://user:password@host:5432/superset or sqlite:////path,"
            " found one without a scheme, which SQLAlchemy does not take"
        )
    return address
