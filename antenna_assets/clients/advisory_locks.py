"""Advisory locks of PostgreSQL: every key by name, what it guards, and whether a session holds it.

Keys never change: processes of an older version hold the same ones. `pg_locks` shows them in the database's
own locks.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

STREAM = 0x73747265616D
"""The one stream of a ledger, for as long as it runs. A stream that waits for a service keeps it where it
can; commands that change the ledger by hand hold it, so that no stream starts."""

SWEEP = 0x7377656570
"""One sweep at a time."""

FORGET = 0x666F72676574
"""One `antenna forget-user` at a time."""

CLAIM = 0x636C61696D
"""Claiming a lake for a ledger, or adopting one."""

MIGRATIONS = 0x616E74656E6E61
"""Applying migrations, and everything else that `antenna up` changes in the database."""

GRANTS = 0x6772616E74
"""Granting rights on Dagster's tables; for the transaction."""

ZONES = 0x7A6F6E6573
"""What the publication of a period rests on beside its hours: shared by those who publish one, from their
look at the zones and quotas to their COMMIT; exclusive, for the transaction, by who changes the zone of a
user or of billing, or the quotas of past days or months. The trigger of `user_metadata` takes it as well."""

PERIOD = 0x706572696F64
"""Sealing the next generation of a day or month; for the transaction."""

FAILED_RUNS = 0x6661696C6564
"""Storing the failure of a run of Dagster; for the transaction."""

OLD_PREVIEWS = 0x70726576696577
"""Cleaning Dagster's events of older versions."""

ALERTS = 0x616C65727473
"""One watch over the alerts at a time; the next one waits."""

CERTIFICATE_OF_HOUR = 0x63657274
"""First of two 32-bit keys, the second being the hour's number since 1970: certifying an hour."""

# A run of Dagster: the key is `hashtextextended(run id, 0)`, shared by the processes of the run. See
# `defs/run_lock.py`.


def try_lock(connection: psycopg.Connection, key: int) -> bool:
    """Take a lock for the session, if no other session holds it; returns whether it was taken."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()
    return row == (True,)


def unlock(connection: psycopg.Connection, key: int) -> None:
    """Release a lock of the session. A session that is broken has released it already."""
    with suppress(psycopg.Error):
        connection.execute("SELECT pg_advisory_unlock(%s)", [key])


@contextmanager
def locked(connection: psycopg.Connection, key: int) -> Iterator[None]:
    """Hold a lock within the block, after waiting for whoever has it.

    It is released explicitly: a session that ends keeps its locks for a moment.
    """
    connection.execute("SELECT pg_advisory_lock(%s)", [key])
    try:
        yield
    finally:
        unlock(connection, key)


def is_held(connection: psycopg.Connection, key: int) -> bool:
    """Whether a session of this database holds a lock."""
    row = connection.execute(f"SELECT EXISTS (SELECT {HOLDERS})", {"key": key}).fetchone()
    return row == (True,)


HOLDERS = """
    FROM pg_locks AS holder WHERE holder.locktype = 'advisory' AND holder.granted
        AND holder.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        -- A key of 64 bits is shown in two halves, and `objsubid` 1 marks it as one.
        AND holder.objsubid = 1 AND holder.classid::bigint << 32 | holder.objid::bigint = %(key)s
"""
"""The rows of `pg_locks` that hold the lock `key`."""
