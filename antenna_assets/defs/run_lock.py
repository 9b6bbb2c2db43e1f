"""Liveness lock of a run's worker: an advisory lock in PostgreSQL, held while the run is in progress.

PostgreSQL ends the session of a process that died, on any machine, and releases the lock. `run_launcher.py`
checks it.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg

from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_session import RUN


@contextmanager
def hold(url: str, run_id: str) -> Iterator[None]:
    """Hold the run's lock in a session of its own; several processes of a run may hold it."""
    # `closing`: if PostgreSQL has ended the session meanwhile, a finished run must not fail.
    with closing(connect(url, application=f"antenna run {run_id}", limits=RUN)) as connection:
        connection.execute("SELECT pg_advisory_lock_shared(hashtextextended(%s, 0))", [run_id])
        yield


def is_locked(connection: psycopg.Connection, run_id: str) -> bool:
    """Whether a process holds the run's lock."""
    # In autocommit mode the lock is released at the end of this statement.
    row = connection.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [run_id]).fetchone()
    return row != (True,)
