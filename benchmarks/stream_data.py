"""The messages of the stream: plain JSON that every contender can read, ordered by time.

The simulator's unusual but valid forms are left out: peers would drop them or need extra code.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import duckdb

from antenna_assets.simulator.events import Message
from benchmarks.hour_data import events_select, uniform

CHUNK = 100_000
MESSAGE = '{{"bytes":{},"timestamp":{:.3f},"app":"{}","id":"{}","antenna_id":"{}"}}'
"""In the syntax of DuckDB's `format`."""
JITTER_SECONDS = 2
"""How late an event may be, as by queues on the way to Kafka."""


def messages(count: int, *, users: int, start: datetime, span: timedelta) -> Iterator[Message]:
    """Yield `count` messages spread evenly over the `span` from `start`, keyed by user."""
    begin, step = start.timestamp(), span.total_seconds() / count
    time = f"greatest({begin}, {begin} + i * {step} - {JITTER_SECONDS} * {uniform(9)})"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for first in range(0, count, CHUNK):
            size = min(CHUNK, count - first)
            rows = connection.execute(
                f"SELECT id, format('{MESSAGE}', bytes, {time}, app, id, antenna_id)"
                f" FROM ({events_select(first, size, users=users)})"
            ).fetchall()
            for key, value in rows:
                yield Message(key.encode(), value.encode(), None, None)
