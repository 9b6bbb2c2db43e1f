"""The stream without Spark, for faults that need none: Kafka's own client reads, the oracle parses, PyArrow writes.

From there on it is the stream's own code: syncing and measuring the files, the one transaction, the look at what can be closed. Run as
a module it does this on the settings of its environment, and dies where they say.
"""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.schema import LANDED_SCHEMA, REJECTED_SCHEMA
from antenna_assets.ledger.batch import BatchContent, BatchPlan
from antenna_assets.ledger.commit import Observation, commit_batch
from antenna_assets.ledger.head import claim_topic, read_head
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.ledger.progress import backlog_of, next_to_read
from antenna_assets.settings import Settings, load_settings
from antenna_assets.storage.attempt import attempt_folder
from antenna_assets.streaming.committer import Committer
from antenna_assets.streaming.embedded_sums import embedded_sums
from antenna_assets.streaming.read_back import WrittenAttempt, read_back
from antenna_assets_tests.parse_oracle import EPOCH, Rejected, verdict

MESSAGES_PER_BATCH = 400


def read_everything(settings: Settings) -> None:
    """Read to the broker's end in small batches, then close what can be closed."""
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    with connect(settings.postgres_url or "") as connection:
        topic = broker.describe()
        claim_topic(connection, topic.name, topic.id)
        while read_some(settings, broker, connection, topic):
            pass
        looks(settings, broker).heartbeat(connection)


def looks(settings: Settings, broker: Broker) -> Committer:
    """The stream's own look at Kafka and what it closes, which needs no Spark."""
    return Committer(settings, broker, say=lambda _line: None, on_commit=lambda: None)


def read_some(settings: Settings, broker: Broker, connection: psycopg.Connection, topic: Topic) -> bool:
    """Read and commit one batch; whether there was anything to read."""
    messages, ranges = _unread(settings, broker, connection, topic)
    if ranges:
        _commit(settings, broker, connection, topic, messages, ranges)
    return bool(ranges)


def _unread(
    settings: Settings, broker: Broker, connection: psycopg.Connection, topic: Topic
) -> tuple[list[Any], list[OffsetRange]]:
    """The messages of a batch, and the offsets up to which it read: those of control records included."""
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    places = next_to_read(connection, broker, topic)
    left = {p for p, end in broker.next_offsets(topic).items() if places[p] < end}
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "group.id": "plain",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    found: list[Any] = []
    ends = dict(places)
    try:
        consumer.assign([TopicPartition(topic.name, p, places[p]) for p in left])
        while left and len(found) < MESSAGES_PER_BATCH:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is None:
                found.append(message)
                ends[message.partition()] = message.offset() + 1
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF
                ends[message.partition()] = message.offset()
                left.discard(message.partition())
    finally:
        consumer.close()
    return found, [OffsetRange(p, places[p], end) for p, end in sorted(ends.items()) if end > places[p]]


def _commit(
    settings: Settings,
    broker: Broker,
    connection: psycopg.Connection,
    topic: Topic,
    messages: list[Any],
    ranges: list[OffsetRange],
) -> None:
    head = read_head(connection, topic.name)
    begun = datetime.now(UTC)
    clock = database_now(connection)
    folder = attempt_folder(head.batch + 1)
    _write(f"{settings.lake_uri}/{folder}", messages, clock, max(settings.start, clock - settings.horizon))
    landed = summed_up(settings, WrittenAttempt(folder, begun, len(messages)))
    now = database_now(connection)
    done = next_to_read(connection, broker, topic) | {r.partition: r.until_offset for r in ranges}
    left = backlog_of(broker, topic, done)
    commit_batch(
        connection,
        BatchPlan(topic.name, topic.id, head.batch + 1, clock, ranges),
        landed,
        Observation(now, left),
        lateness=settings.lateness,
    )


def summed_up(settings: Settings, written: WrittenAttempt) -> BatchContent:
    """What was written, read back by the stream's own code and the embedded engine."""
    with embedded_sums(settings) as engine:
        return read_back(written, engine, lake=settings.lake_uri, live=settings.live_windows)


def _write(folder: str, messages: list[Any], clock: datetime, oldest: datetime) -> None:
    files: defaultdict[str, list[tuple]] = defaultdict(list)
    for message in messages:
        place = (message.partition(), message.offset())
        found = verdict(message.value(), clock, oldest)
        if isinstance(found, Rejected):
            time = EPOCH + timedelta(milliseconds=message.timestamp()[1])
            files["rejected"].append((message.value(), found.reason, None, *place, time))
        else:
            time = EPOCH + timedelta(microseconds=found.micros)
            files[f"hour={time:%Y%m%d%H}"].append(
                (time, found.app, found.id, found.antenna_id, found.bytes, *place)
            )
    for name, rows in files.items():
        schema = REJECTED_SCHEMA if name == "rejected" else LANDED_SCHEMA
        columns = zip(*rows, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        with fsspec.open(f"{folder}/{name}/part-0.parquet", "wb") as file:
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), file)


if __name__ == "__main__":
    read_everything(load_settings())
