"""Kafka's time of a record, brought to what every reader of our files can hold.

A record's time is its sender's to choose where the topic has `message.timestamp.type=CreateTime`: any 64-bit number of
milliseconds. It decides nothing about the event; it is kept for a person, with rejected messages alone.
"""

EARLIEST_MILLIS = -62_135_596_800_000
"""0001-01-01T00:00:00Z, the first instant that Python's `datetime` has."""

LATEST_MILLIS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z, the last millisecond that it has."""


def kafka_micros(millis: int) -> int:
    """The microseconds that stand for a record's milliseconds: the nearest that can be shown."""
    return 1_000 * min(max(millis, EARLIEST_MILLIS), LATEST_MILLIS)


def clamped_in_spark(timestamp: str) -> str:
    """SQL of Spark: the nearest instant to `timestamp` that can be shown."""
    return f"greatest(timestamp_millis({EARLIEST_MILLIS}L), least(timestamp_millis({LATEST_MILLIS}L), {timestamp}))"


def clamped_in_duckdb(timestamp: str) -> str:
    """SQL of DuckDB: the same, for files that were written with other instants."""
    return (
        f"greatest(make_timestamptz({1_000 * EARLIEST_MILLIS}), "
        f"least(make_timestamptz({1_000 * LATEST_MILLIS}), {timestamp}))"
    )
