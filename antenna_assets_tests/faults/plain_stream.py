"""The stream without Spark, for faults that need none: Kafka's own client reads, the oracle parses, PyArrow writes.

From there on it is the stream's own code: syncing and measuring the files, the one transaction, the heartbeat. Run as
a module it does this on the settings of its environment, and dies where they say.
"""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.database import connect
from antenna_assets.ledger import committed_offsets
from antenna_assets.schema import LANDED, REJECTED
from antenna_assets.settings import Settings, load_settings
from antenna_assets.streaming.attempt import attempt_folder
from antenna_assets.streaming.broker import Broker, Topic
from antenna_assets.streaming.commit import commit_batch, commit_heartbeat
from antenna_assets.streaming.head import claim_topic, read_head
from antenna_assets.streaming.landed import Landed, Written
from antenna_assets.streaming.plan import OffsetRange
from antenna_assets.streaming.query import engine_of_sums
from antenna_assets.streaming.read_back import read_back
from antenna_assets_tests.parse_oracle import EPOCH, Rejected, verdict

MESSAGES_PER_BATCH = 400


def read_everything(settings: Settings) -> None:
    """Read to the broker's end in small batches, then let the clock close the hours."""
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    with connect(settings.postgres_url or "") as connection:
        topic = broker.describe()
        claim_topic(connection, topic.name, topic.id)
        while messages := _unread(settings, broker, connection, topic):
            _commit(settings, broker, connection, topic, messages)
        head = read_head(connection, topic.name)
        commit_heartbeat(
            connection,
            topic=topic.name,
            batch=head.batch,
            now=datetime.now(UTC),
            lateness=settings.lateness,
        )


def _unread(settings: Settings, broker: Broker, connection: psycopg.Connection, topic: Topic) -> list[Any]:
    from confluent_kafka import Consumer, TopicPartition

    places = broker.earliest(topic) | committed_offsets(connection, topic.id, topic.partitions)
    left = sum(end - places[partition] for partition, end in broker.next_offsets(topic).items())
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka_bootstrap, "group.id": "plain", "enable.auto.commit": False}
    )
    try:
        consumer.assign([TopicPartition(topic.name, p, offset) for p, offset in places.items()])
        found: list[Any] = []
        wanted = min(left, MESSAGES_PER_BATCH)
        while len(found) < wanted:
            # It waits for as many as it is asked for.
            found += consumer.consume(wanted - len(found), timeout=10)
    finally:
        consumer.close()
    return found


def _commit(
    settings: Settings, broker: Broker, connection: psycopg.Connection, topic: Topic, messages: list[Any]
) -> None:
    head = read_head(connection, topic.name)
    begun = clock = datetime.now(UTC)
    folder = attempt_folder(head.batch + 1)
    _write(f"{settings.lake_uri}/{folder}", messages, clock, max(settings.start, clock - settings.horizon))
    landed = summed_up(settings, Written(folder, begun, len(messages)))
    spans: dict[int, list[int]] = {}
    for message in messages:
        span = spans.setdefault(message.partition(), [message.offset(), 0])
        span[1] = message.offset() + 1
    ranges = [OffsetRange(partition, first, end) for partition, (first, end) in sorted(spans.items())]
    done = broker.earliest(topic) | committed_offsets(connection, topic.id, topic.partitions)
    done |= {r.partition: r.until_offset for r in ranges}
    commit_batch(
        connection,
        topic=topic.name,
        topic_id=topic.id,
        number=head.batch + 1,
        clock=clock,
        ranges=ranges,
        landed=landed,
        lagging=[p for p, end in broker.next_offsets(topic).items() if end > done[p]],
        lateness=settings.lateness,
    )


def summed_up(settings: Settings, written: Written) -> Landed:
    """What was written, read back by the stream's own code and the embedded engine."""
    with engine_of_sums(settings, None) as engine:
        return read_back(written, engine, lake=settings.lake_uri, window=settings.window)


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
        schema = REJECTED if name == "rejected" else LANDED
        columns = zip(*rows, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        with fsspec.open(f"{folder}/{name}/part-0.parquet", "wb") as file:
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), file)


if __name__ == "__main__":
    read_everything(load_settings())
