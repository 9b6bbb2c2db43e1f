"""The lock of a ledger's one stream: taken by the stream, and by commands that must run while there is none.

A stream that waits for a service holds it in another session, see `streaming/waiting.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from antenna_assets.clients import advisory_locks
from antenna_assets.errors import StreamError


class StreamRunning(StreamError):
    """Another stream holds this ledger."""


def require_only_stream(connection: psycopg.Connection) -> None:
    """Take the stream's lock, and hold it until the connection ends.

    Raises:
        StreamRunning: another connection has it.
    """
    if not advisory_locks.try_lock(connection, advisory_locks.STREAM):
        raise StreamRunning("another stream is running on this ledger, and only one may; stop it first")


@contextmanager
def only_stream(connection: psycopg.Connection) -> Iterator[None]:
    """Hold the stream's lock within the block.

    Raises:
        StreamRunning: another connection has it.
    """
    require_only_stream(connection)
    try:
        yield
    finally:
        advisory_locks.unlock(connection, advisory_locks.STREAM)


def stream_runs(connection: psycopg.Connection) -> bool:
    """Whether a stream of this ledger is running."""
    return advisory_locks.is_held(connection, advisory_locks.STREAM)
