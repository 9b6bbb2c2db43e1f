"""PostgreSQL's clock, by which events are validated, hours closed and files retained: hosts differ.

The host's own clock is only compared with it, to report a host that is wrong.
"""

import platform
import time
from datetime import UTC, datetime, timedelta

import psycopg

TOLERANCE = timedelta(seconds=30)
"""A host whose clock differs by more is reported."""

# It also counts while the machine is suspended; macOS has only CLOCK_MONOTONIC, which does.
_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def database_now(connection: psycopg.Connection) -> datetime:
    """The present instant by PostgreSQL's clock, not that of the transaction's start."""
    ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
    return now.astimezone(UTC)


def host_now() -> datetime:
    """The present instant by this host's clock."""
    return datetime.now(UTC)


class Clock:
    """PostgreSQL's clock as last read, extrapolated by this host's monotonic clock.

    `read` asks PostgreSQL and notices a step of its clock; `now` needs no connection.

    Attributes:
        ahead: how far this host's clock was ahead of PostgreSQL's when it was last read.
        step: by how much PostgreSQL's clock was set between the last two reads; negative: back.
    """

    def __init__(self, connection: psycopg.Connection) -> None:
        self._read, self._at = database_now(connection), time.clock_gettime(_ELAPSED)
        self.ahead = host_now() - self._read
        self.step = timedelta(0)

    def read(self, connection: psycopg.Connection) -> datetime:
        """Read PostgreSQL's clock."""
        read = database_now(connection)
        self.step = read - self.now()
        self._read, self._at = read, time.clock_gettime(_ELAPSED)
        self.ahead = host_now() - read
        return read

    def now(self) -> datetime:
        """The present instant; never ahead of PostgreSQL's clock unless that was set back."""
        return self._read + timedelta(seconds=time.clock_gettime(_ELAPSED) - self._at)

    @property
    def wrong_host(self) -> str | None:
        """A warning if this host's clock is wrong; None if it is right."""
        return wrong_host(self.ahead)


def wrong_here(connection: psycopg.Connection) -> str | None:
    """A warning if this host's clock is wrong now; None if it is right."""
    return wrong_host(host_now() - database_now(connection))


def wrong_host(ahead: timedelta) -> str | None:
    """A warning if a host's clock that is `ahead` by this much is wrong; None if it is right."""
    if abs(ahead) <= TOLERANCE:
        return None
    way = "ahead of" if ahead > timedelta(0) else "behind"
    apart = timedelta(seconds=round(abs(ahead).total_seconds()))
    return f"the clock of {platform.node() or 'this machine'} is {apart} {way} PostgreSQL's"
