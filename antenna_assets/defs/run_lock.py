"""The sign that a run's worker lives: a PostgreSQL session that holds the run's advisory lock while the run goes on.

PostgreSQL ends the session of a process that died, on whatever machine it was, and frees the lock. What is done about
a run whose lock nobody holds is in `run_launcher.py`.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg

from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_session import RUN


@contextmanager
def hold(url: str, run_id: str) -> Iterator[None]:
    """Hold the run's lock within the block, in a session of its own. Several processes of a run may hold it at once."""
    # `closing`, for a session that PostgreSQL ended meanwhile is no reason to fail a run that is done.
    with closing(connect(url, application=f"antenna run {run_id}", limits=RUN)) as connection:
        connection.execute("SELECT pg_advisory_lock_shared(hashtextextended(%s, 0))", [run_id])
        yield


def is_locked(connection: psycopg.Connection, run_id: str) -> bool:
    """Whether a process holds the run's lock."""
    # In autocommit mode the lock is free again at the end of this statement.
    row = connection.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [run_id]).fetchone()
    return row != (True,)
