"""Hours that the embedded stream has landed from Kafka, in small files and with late rows.

A real hour comes in thousands of micro-batches, whose files are merged meanwhile. Here it comes in some
dozens, or in eight if there is a month of them, so that all of it lands in minutes. What is left of an hour
is alike: ten to fifty files, of some hundred to some ten thousand rows, merged ones among them. One event in
a hundred comes an hour late, when its hour has closed.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path

import duckdb

from antenna_assets.clients.kafka_broker import Broker
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR
from antenna_assets.settings import PREFIX, Settings
from antenna_assets.stack.kafka_topic import admin_client, ensure_topic
from antenna_assets.streaming.embedded import batches
from antenna_assets.streaming.job import Stream
from benchmarks.hour_data import events_select, uniform
from benchmarks.stream_data import CHUNK, USUAL
from benchmarks.world import PARTITIONS, add_users, settings_of

NOTE = (
    "The embedded stream landed these hours from Kafka: ten to fifty files of each, more of an hour of many"
    " million events; one event in a hundred came an hour late."
)

LATE_SHARE = 0.01
BATCHES_PER_HOUR, BATCHES = 50, 6_000
"""How many micro-batches are wanted, and the most in all: each takes some 0.1 s of CPU, however small."""

BATCH = (200, 50_000)
"""The fewest and the most messages of a micro-batch. A file of 50,000 rows is not merged any more."""

QUEUED = 4 * CHUNK
_SECONDS = 60


def land_hours(
    environment: Mapping[str, str],
    *,
    first: datetime,
    hours: int,
    events: int,
    users: int,
    even: bool = False,
) -> None:
    """Send `events` of each hour to the environment's topic, read them, and close the hours.

    Everything is sent before it is read: a stream that has read out past hours closes them by the clock, and
    what comes then would all be late.

    Args:
        even: each user has as many events as the others.

    Raises:
        RuntimeError: the ledger has other rows than were sent.
    """
    # Kafka receives past hours now: after `quiet` they would close while they are still read.
    settings = settings_of(environment).model_copy(update={"quiet": timedelta(days=1)})
    ensure_topic(settings.kafka_bootstrap or "", settings.topic, PARTITIONS)
    with connect(settings.postgres_url or "") as connection:
        add_users(connection, users)
    with _stream(settings, per_batch=events // min(BATCHES_PER_HOUR, BATCHES // hours)) as stream:
        arriving = [_arriving(number, hours, first, events, users, even) for number in range(hours + 1)]
        _send(settings, chain.from_iterable(arriving[:-1]))
        stream.read_available()
        # What comes late of the last hour.
        _send(settings, arriving[-1])
        stream.read_available()
    with connect(settings.postgres_url or "") as connection:
        row = connection.execute(
            "SELECT sum(rows), count(*) FILTER (WHERE rows > 0) FROM ledger.hour"
        ).fetchone()
    if row != (hours * events, hours):
        raise RuntimeError(f"expected {hours * events} rows in {hours} hours, found {row}")
    # Some gigabytes.
    admin = admin_client(settings.kafka_bootstrap or "")
    admin.delete_topics([settings.topic])[settings.topic].result(_SECONDS)


def landed_files(environment: Mapping[str, str]) -> list[str]:
    """The accepted files that the ledger names: a small file that was merged stays beside them for hours."""
    lake = Path(environment[f"{PREFIX}LAKE"])
    with connect(environment[f"{PREFIX}POSTGRES_URL"]) as connection:
        rows = connection.execute("SELECT path FROM ledger.file WHERE kind = 'landed' ORDER BY path")
        return [str(lake / path) for (path,) in rows.fetchall()]


@contextmanager
def _stream(settings: Settings, *, per_batch: int) -> Iterator[Stream]:
    """The stream, with micro-batches of so many messages."""
    usual = batches.MESSAGES_PER_BATCH
    batches.MESSAGES_PER_BATCH = min(max(per_batch, BATCH[0]), BATCH[1])
    stream = Stream(
        settings,
        postgres_url=settings.postgres_url or "",
        kafka_bootstrap=settings.kafka_bootstrap or "",
        say=lambda _: None,
        stop=threading.Event(),
    )
    try:
        with closing(stream):
            yield stream
    finally:
        batches.MESSAGES_PER_BATCH = usual


def _arriving(number: int, hours: int, first: datetime, events: int, users: int, even: bool) -> Iterator[str]:
    """Yield SELECTs of what arrives in an hour, in order: its own events, and late ones of the hour before.

    A row has a partition and its messages.
    """
    late = f"{uniform(8)} < {LATE_SHARE}"
    for begin in range(0, events, CHUNK):
        count = min(CHUNK, events - begin)
        parts = [
            f"SELECT *, i - {hour * events} AS place, {(first + hour * HOUR).timestamp()} AS hour"
            f" FROM ({events_select(hour * events + begin, count, users=users, even=even)})"
            f" WHERE {which}"
            for hour, which in ((number, f"NOT {late}"), (number - 1, late))
            if 0 <= hour < hours
        ]
        time = f"hour + (place * 3600000 // {events}) / 1000"
        yield (
            f"SELECT place % {PARTITIONS},"
            f" list(encode(format('{USUAL}', bytes, {time}, app, id, antenna_id)) ORDER BY place)"
            f" FROM ({' UNION ALL '.join(parts)}) GROUP BY 1"
        )


def _send(settings: Settings, selects: Iterable[str]) -> None:
    """Send the messages of SELECTs, and wait until the topic has them."""
    from confluent_kafka import Producer

    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    expected = sum(broker.next_offsets(broker.describe()).values())
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 2 * QUEUED,
        }
    )
    with duckdb.connect() as database:
        for select in selects:
            for partition, values in database.execute(select).fetchall():
                producer.produce_batch(broker.topic, [{"value": value} for value in values], partition)
                expected += len(values)
            while len(producer) > QUEUED:
                producer.poll(0.05)
    producer.flush(_SECONDS)
    found = sum(broker.next_offsets(broker.describe()).values())
    if found != expected:
        raise RuntimeError(f"expected {expected} messages in {broker.topic}, found {found}")
