"""Hours that hold so many bytes that they accept no more events."""

from datetime import datetime

import psycopg

FULL_HOUR_BYTES = 2**62
"""An hour that holds so many takes no more events: every sum of an hour stays within 64 bits.

No network comes near: it is 1,000 times the world's mobile traffic. The other half of what 64 bits hold is for the two
micro-batches that may be under way when an hour gets there; one holds at most 2^56 bytes.
"""


def full_hours(connection: psycopg.Connection) -> list[datetime]:
    """The hours that hold `FULL_HOUR_BYTES` or more, ascending; nearly always none."""
    # The number as it stands in the index `hour_full`.
    rows = connection.execute("SELECT hour FROM ledger.hour WHERE bytes >= 4611686018427387904 ORDER BY hour")
    return [hour for (hour,) in rows.fetchall()]
