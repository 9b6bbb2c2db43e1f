"""Full hours: they hold so many bytes that they accept no more events."""

from datetime import datetime

import psycopg

FULL_HOUR_BYTES = 2**62
"""An hour with this many bytes accepts no more events, so every sum of an hour fits into 64 bits.

It is 1,000 times the world's mobile traffic. The rest of the range is for the few micro-batches that may be
in flight when an hour becomes full; each has at most 2^56 bytes.
"""


def full_hours(connection: psycopg.Connection) -> list[datetime]:
    """The hours with `FULL_HOUR_BYTES` or more, ascending; nearly always none."""
    # As a literal, to match the partial index `hour_full`.
    rows = connection.execute("SELECT hour FROM ledger.hour WHERE bytes >= 4611686018427387904 ORDER BY hour")
    return [hour for (hour,) in rows.fetchall()]
