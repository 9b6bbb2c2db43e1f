"""PostgreSQL's clock, the one clock of verdicts, watermarks and retention: hosts differ, the ledger is one.

What a host's own clock says is used for nothing but to name a host that is wrong.
"""

import platform
import time
from datetime import UTC, datetime, timedelta

import psycopg

TOLERANCE = timedelta(seconds=30)
"""A host whose own clock differs by more is named."""

# One that goes on while the machine sleeps; macOS has no other and needs none.
_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def database_now(connection: psycopg.Connection) -> datetime:
    """The present instant by PostgreSQL's clock, also in the middle of a transaction."""
    ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
    return now.astimezone(UTC)


def host_now() -> datetime:
    """The present instant by this machine's own clock."""
    return datetime.now(UTC)


class Clock:
    """PostgreSQL's clock as last read, carried on by this machine's monotonic clock.

    Whoever uses a connection anyway reads it again, so that a step of PostgreSQL's clock is not missed for long; whoever
    has none at hand asks for `now`.

    Attributes:
        ahead: how far this machine's own clock was ahead of PostgreSQL's at the last reading.
        step: how far PostgreSQL's clock was set since the reading before, forwards or, if negative, back.
    """

    def __init__(self, connection: psycopg.Connection) -> None:
        self._read, self._at = database_now(connection), time.clock_gettime(_ELAPSED)
        self.ahead = host_now() - self._read
        self.step = timedelta(0)

    def read(self, connection: psycopg.Connection) -> datetime:
        """Ask PostgreSQL."""
        read = database_now(connection)
        self.step = read - self.now()
        self._read, self._at = read, time.clock_gettime(_ELAPSED)
        self.ahead = host_now() - read
        return read

    def now(self) -> datetime:
        """The present instant, never ahead of PostgreSQL's clock but for its steps."""
        return self._read + timedelta(seconds=time.clock_gettime(_ELAPSED) - self._at)

    @property
    def wrong_host(self) -> str | None:
        """A sentence on this machine if its own clock is wrong; None if it is right."""
        return wrong_host(self.ahead)


def wrong_here(connection: psycopg.Connection) -> str | None:
    """A sentence on this machine if its own clock is wrong now; None if it is right."""
    return wrong_host(host_now() - database_now(connection))


def wrong_host(ahead: timedelta) -> str | None:
    """A sentence on this machine if its own clock is so far `ahead` that it is wrong; None if it is right."""
    if abs(ahead) <= TOLERANCE:
        return None
    way = "ahead of" if ahead > timedelta(0) else "behind"
    apart = timedelta(seconds=round(abs(ahead).total_seconds()))
    return f"the clock of {platform.node() or 'this machine'} is {apart} {way} PostgreSQL's"
