"""Messages as every reader hands them on, with a record time that all readers of our files can represent.

With `message.timestamp.type=CreateTime` the sender chooses it: any 64-bit number of milliseconds. It decides
nothing about an event; it is kept for people, with rejected messages only.
"""

import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.domain.schema import TIMESTAMP

MESSAGES = pa.schema(
    [
        pa.field("value", pa.binary()),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", TIMESTAMP, nullable=False),
    ]
)
"""Messages with their coordinates, named as in Spark's Kafka source; the timestamp is clamped."""

EARLIEST_MILLIS = -62_135_596_800_000
"""0001-01-01T00:00:00Z, the first instant that Python's `datetime` has."""

LATEST_MILLIS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z, the last millisecond that it has."""


def record_times(millis: pa.Array) -> pa.Array:
    """Times of records, as Kafka has them (64-bit milliseconds since 1970), as clamped timestamps."""
    return pc.multiply(_clamped(millis, 1), 1_000).cast(TIMESTAMP)


def clamped_times(times: pa.Array) -> pa.Array:
    """Timestamps in microseconds and any time zone, clamped."""
    return _clamped(times.cast(pa.int64()), 1_000).cast(TIMESTAMP)


def _clamped(times: pa.Array, per_milli: int) -> pa.Array:
    earliest, latest = EARLIEST_MILLIS * per_milli, LATEST_MILLIS * per_milli
    return pc.max_element_wise(pc.min_element_wise(times, latest), earliest)


def clamped_in_duckdb(timestamp: str) -> str:
    """DuckDB SQL: the same, for files that were written with other instants."""
    return (
        f"greatest(make_timestamptz({1_000 * EARLIEST_MILLIS}), "
        f"least(make_timestamptz({1_000 * LATEST_MILLIS}), {timestamp}))"
    )
