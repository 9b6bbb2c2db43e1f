"""Detecting that a new topic begins with messages that were landed already from the topic before it.

A topic that was copied to another cluster does: reading it from its first message would count them twice.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import psycopg
import pyarrow as pa

from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key, hour_of
from antenna_assets.domain.listing import first_few
from antenna_assets.engines.duckdb_files import register_stores
from antenna_assets.ledger.files import files_of_hour
from antenna_assets.ledger.head import kafka_id
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.ledger.partition_starts import FORMS
from antenna_assets.streaming.exact_ranges import PartBounds, Unreadable, read_ranges

MESSAGES_OF_EACH = 50
"""The number of first messages of a partition that are compared."""

PARTITIONS = 8

HOURS_NAMED = 24


def doubled_reading(
    connection: psycopg.Connection, broker: Broker, topic: Topic, lake: str, first: Mapping[int, int]
) -> str | None:
    """Why reading from these offsets would count messages twice, and what to do; None if it would not.

    Args:
        topic: with the id that the ledger knows.
    """
    another = connection.execute(
        "SELECT 1 FROM ledger.batch_offset WHERE topic_id <> %s LIMIT 1", [topic.id]
    ).fetchone()
    if another is None:
        return None
    advice = f"say where to begin with `antenna stream --from`, which is recorded: {FORMS}"
    if topic.id != kafka_id(topic.id):
        return (
            f"Kafka has lost messages of {topic.name} that were read, and assigns their offsets again to "
            "other messages: what it still has from before would be counted twice, and what was sent since "
            f"is unread; the time when Kafka came back tells them apart; {advice}"
        )
    events = _first_events(broker, topic, first)
    hours = {hour_of(datetime.fromtimestamp(event["second"], UTC)) for event in events}
    paths = [f"{lake}/{file.path}" for hour in hours for file in files_of_hour(connection, hour)]
    if not paths or 2 * _landed(paths, events) < len(events):
        return None
    doubled = [
        hour
        for (hour,) in connection.execute(
            "SELECT hour FROM ledger.hour WHERE rows > 0 AND hour >= %s ORDER BY hour", [min(hours)]
        )
    ]
    named = first_few([*map(hour_key, doubled)], HOURS_NAMED)
    return (
        f"topic {topic.name} begins with messages that are landed already, so it is a copy of the one before "
        f"it: read from its first message, {counted(len(doubled), 'hour')} may double: {named}; {advice}"
    )


def _first_events(broker: Broker, topic: Topic, first: Mapping[int, int]) -> list[dict[str, Any]]:
    """The first valid events of some partitions, by a simple parser."""
    following = broker.next_offsets(topic)
    events = []
    for partition in islice((p for p in topic.partitions if first[p] < following[p]), PARTITIONS):
        wanted = OffsetRange(partition, first[partition], following[partition])
        try:
            part = next(read_ranges(broker, [wanted], PartBounds(messages=MESSAGES_OF_EACH)), None)
        except Unreadable:
            continue
        values = part.messages["value"].to_pylist() if part is not None else []
        events += [event for event in map(_event, values) if event is not None]
    return events


def _event(value: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(value or b"")
        time = found["timestamp"]
        second = datetime.fromisoformat(time).timestamp() if isinstance(time, str) else time
        return {
            **{name: str(found[name]) for name in ("app", "id", "antenna_id")},
            "bytes": int(found["bytes"]),
            "second": int(datetime.fromtimestamp(second, UTC).timestamp()),
        }
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        # It would be rejected, and counted in no sum.
        return None


def _landed(paths: list[str], events: list[dict[str, Any]]) -> int:
    """How many of the events are in these landed files."""
    import duckdb

    schema = pa.schema(
        [(name, pa.string()) for name in ("app", "id", "antenna_id")]
        + [("bytes", pa.int64()), ("second", pa.int64())]
    )
    with duckdb.connect() as database:
        register_stores(database, paths)
        database.register("event", pa.Table.from_pylist(events, schema=schema))
        found = database.execute(
            "SELECT count(*) FROM event WHERE EXISTS ("
            "SELECT 1 FROM read_parquet(?, hive_partitioning = false) AS landed"
            " WHERE landed.app = event.app AND landed.id = event.id AND landed.antenna_id = event.antenna_id"
            " AND landed.bytes = event.bytes AND floor(epoch(landed.timestamp)) = event.second)",
            [paths],
        ).fetchone()
    return found[0] if found else 0
