"""Errors of PostgreSQL: which are retryable, by SQLSTATE, for stream, runs, metrics and commands.

psycopg's classes do not tell: read-only after a failover is an `InternalError`, a row too long an
`OperationalError`.
"""

import psycopg

from antenna_assets.errors import AntennaError

# Connection, transaction rollback, insufficient resources, operator intervention, system error.
_RETRYABLE_CLASSES = ("08", "40", "53", "57", "58")
_RETRYABLE_STATES = (
    "25006",  # read-only: the address leads to a standby, until it is promoted or the name is moved
    "25P03",  # idle in a transaction for too long
    "25P04",  # a transaction took too long
    "55006",  # in use
    "55P03",  # a lock was not available in time
)


class DatabaseError(AntennaError):
    """PostgreSQL cannot be used; the message says where it was expected and what to do."""


class DatabaseUnfit(DatabaseError):
    """PostgreSQL cannot be used as it is configured; retrying does not help."""


def is_retryable(error: psycopg.Error) -> bool:
    """Whether another attempt, in a new session and from the committed state, may succeed."""
    if error.sqlstate is None:
        # An error of the client: it could not connect, or lost the connection.
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_RETRYABLE_CLASSES) or error.sqlstate in _RETRYABLE_STATES


def error_line(error: psycopg.Error) -> str:
    """The error in one line, for a person."""
    if error.sqlstate == "25006":
        return (
            "PostgreSQL is read-only: it is a standby, or became one; this continues once the address leads "
            "to the primary"
        )
    if error.sqlstate == "25P03":
        return (
            "PostgreSQL ended the session: this process was idle in a transaction for longer than others "
            "may wait for it; the transaction was rolled back"
        )
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
