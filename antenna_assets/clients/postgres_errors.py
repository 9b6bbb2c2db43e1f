"""Which errors of PostgreSQL pass by themselves, by their SQLSTATE: one answer for stream, runs, metrics and commands.

psycopg's classes do not say it: read-only after a failover is an `InternalError`, and a row too long an `OperationalError`.
"""

import psycopg

from antenna_assets.errors import AntennaError

# Connections, conflicts with others, scarce resources, an operator's or the system's intervention.
_PASSING_CLASSES = ("08", "40", "53", "57", "58")
_PASSING_STATES = (
    "25006",  # read-only: the address leads to a standby, until it is promoted or the name moves
    "25P03",  # stood still in a transaction for too long
    "25P04",  # a transaction took too long
    "55006",  # in use
    "55P03",  # a lock was not available in time
)


class DatabaseError(AntennaError):
    """PostgreSQL cannot be used; the message says where it was looked for and what to do."""


class DatabaseUnfit(DatabaseError):
    """PostgreSQL cannot be used as it is set up, and waiting does not mend it."""


def passes(error: psycopg.Error) -> bool:
    """Whether another attempt, with a new session and from what is committed, may mend it."""
    if error.sqlstate is None:
        # The client's own: it found no connection, or lost it.
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_PASSING_CLASSES) or error.sqlstate in _PASSING_STATES


def told(error: psycopg.Error) -> str:
    """What happened, as one line for a person."""
    if error.sqlstate == "25006":
        return "PostgreSQL takes no writes: it is a standby, or became one; this goes on where the address leads to the primary"
    if error.sqlstate == "25P03":
        return (
            "PostgreSQL ended the session: this process stood still within a transaction, longer than others may have to wait"
            " for it; nothing of the transaction was kept"
        )
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
