"""Kafka's record time, clamped to what every reader of our files can represent.

With `message.timestamp.type=CreateTime` the sender chooses it: any 64-bit number of milliseconds. It decides
nothing about an event; it is kept for people, with rejected messages only.
"""

EARLIEST_MILLIS = -62_135_596_800_000
"""0001-01-01T00:00:00Z, the first instant that Python's `datetime` has."""

LATEST_MILLIS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z, the last millisecond that it has."""


def kafka_micros(millis: int) -> int:
    """A record's time in microseconds, clamped to the years 1 to 9999."""
    return 1_000 * min(max(millis, EARLIEST_MILLIS), LATEST_MILLIS)


def clamped_in_spark(timestamp: str) -> str:
    """Spark SQL: `timestamp`, clamped to the years 1 to 9999."""
    earliest, latest = (f"timestamp_millis({millis}L)" for millis in (EARLIEST_MILLIS, LATEST_MILLIS))
    return f"greatest({earliest}, least({latest}, {timestamp}))"


def clamped_in_duckdb(timestamp: str) -> str:
    """DuckDB SQL: the same, for files that were written with other instants."""
    return (
        f"greatest(make_timestamptz({1_000 * EARLIEST_MILLIS}), "
        f"least(make_timestamptz({1_000 * LATEST_MILLIS}), {timestamp}))"
    )
