"""proofs.md, rows 25 and 26, on a real Kafka: partitions of every kind beside live traffic, open transactions, and a host
whose clock is wrong. The rule by itself is in `test_closing_rule.py`, what it does to the ledger in `test_commit.py`.
"""

import ast
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from rich.console import Console

import antenna_assets
from antenna_assets.clients import clock
from antenna_assets.clients.clock import database_now
from antenna_assets.clients.kafka_broker import Broker
from antenna_assets.domain.closing_rule import Backlog
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.errors import StreamError
from antenna_assets.ledger.head import claim_topic
from antenna_assets.ledger.progress import backlog_of, next_to_read, read_past
from antenna_assets.operations.metrics import LedgerCollector
from antenna_assets.operations.status import tables
from antenna_assets.settings import Settings
from antenna_assets.streaming.committer import Committer
from antenna_assets.streaming.job import Stream
from antenna_assets.streaming.spark import reader as reader_module
from antenna_assets_tests.faults import plain_stream
from antenna_assets_tests.faults.live import committed, running, wait_until
from antenna_assets_tests.faults.topics import add_partitions, change_config
from antenna_assets_tests.stream_engines import EACH_ENGINE_IN_THE_LONG_FORM, SPARK

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.services

SECOND = timedelta(seconds=1)
QUIET = 4 * SECOND


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Settings under which an hour is quiet after seconds, and a topic that takes its senders' record times."""
    change_config(settings.kafka_bootstrap or "", settings.topic, {"message.timestamp.type": "CreateTime"})
    return settings.model_copy(update={"quiet": QUIET, "lateness": timedelta(0)})


def event(time_: datetime) -> bytes:
    fields = {"bytes": 1, "timestamp": time_.timestamp(), "app": "a", "id": "u", "antenna_id": "n"}
    return json.dumps(fields).encode()


class Sender:
    """Puts messages into partitions, if need be in transactions."""

    def __init__(self, settings: Settings, *, transactions: bool = False) -> None:
        from confluent_kafka import Producer

        of = {"transactional.id": settings.topic} if transactions else {}
        self._topic = settings.topic
        self.producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "log_level": 0, **of})
        if transactions:
            self.producer.init_transactions(30)

    def send(self, partition: int, *values: bytes, timestamp: datetime | None = None) -> None:
        at = {} if timestamp is None else {"timestamp": round(timestamp.timestamp() * 1000)}
        for value in values:
            self.producer.produce(self._topic, value, partition=partition, **at)
        assert self.producer.flush(20) == 0


class Reader:
    """The stream without Spark, step by step."""

    def __init__(self, settings: Settings, connection: psycopg.Connection) -> None:
        self._settings, self._connection = settings, connection
        self._broker = Broker(settings.kafka_bootstrap or "", settings.topic)
        self.topic = self._broker.describe()
        claim_topic(connection, self.topic.name, self.topic.id)

    def read(self) -> bool:
        return plain_stream.read_some(self._settings, self._broker, self._connection, self.topic)

    def look(self) -> bool:
        """As a stream that has just started: nothing is remembered but what the ledger holds."""
        return plain_stream.looks(self._settings, self._broker).heartbeat(self._connection)

    def left(self) -> dict[int, Backlog]:
        self.topic = self._broker.describe()
        done = next_to_read(self._connection, self._broker, self.topic)
        return backlog_of(self._broker, self.topic, done)

    def closed(self) -> dict[datetime, str]:
        rows = self._connection.execute("SELECT hour, closed_by FROM ledger.hour WHERE closed_at IS NOT NULL")
        return dict(rows.fetchall())

    def held_by(self) -> str | None:
        ((held,),) = self._connection.execute("SELECT held_by FROM closing").fetchall()
        return held


@pytest.fixture
def last(connection: psycopg.Connection) -> datetime:
    """An hour that has ended."""
    return hour_of(database_now(connection)) - 2 * HOUR


def told_by_status(settings: Settings, connection: psycopg.Connection) -> str:
    console = Console(width=300, file=StringIO())
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    for table in tables(connection, settings.topic, broker):
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def metric(settings: Settings, name: str) -> float:
    collector = LedgerCollector(
        settings.postgres_url or "", lambda: Broker(settings.kafka_bootstrap or "", settings.topic)
    )
    return sum(
        sample.value for family in collector.collect() if family.name == name for sample in family.samples
    )


@pytest.mark.parametrize("commits", [True, False], ids=["committed", "aborted"])
def test_row_25_messages_of_an_open_transaction_are_named_and_their_hour_does_not_close_as_empty(
    quick: Settings, connection: psycopg.Connection, last: datetime, commits: bool
) -> None:
    # Only the clock closes here, however long a step takes.
    quick = quick.model_copy(update={"quiet": HOUR})
    reader = Reader(quick, connection)
    Sender(quick).send(1, event(last - HOUR))
    sender = Sender(quick, transactions=True)
    sender.producer.begin_transaction()
    # By Kafka's times the transaction began in the hour that it reports.
    sender.send(0, *[event(last)] * 3, timestamp=last)
    # What comes behind it cannot be read either.
    Sender(quick).send(0, event(last))
    while reader.read():
        pass
    assert not reader.look()
    assert reader.left() == {0: Backlog(0, 0, 4)}
    assert reader.held_by() == "partition 0: 4 in or behind an open transaction"
    assert reader.closed() == {}
    shown = told_by_status(quick, connection)
    assert "closing was held by" in shown
    assert "partition 0: 4 in or behind an open transaction" in shown
    assert metric(quick, "antenna_held_messages") == metric(quick, "antenna_lag_messages") == 4
    assert metric(quick, "antenna_closing_held_seconds") > 0
    if commits:
        sender.producer.commit_transaction(30)
    else:
        sender.producer.abort_transaction(30)
    # Kafka writes a marker of the transaction's end, which is read as well.
    wait_until(lambda: not reader.read() and reader.look(), 20)
    assert reader.held_by() is None
    assert reader.closed()[last] == "clock"
    rows = connection.execute("SELECT rows FROM ledger.hour WHERE hour = %s", [last]).fetchone()
    assert rows == (4 if commits else 1,)


def test_row_26_a_transaction_that_began_after_an_hour_does_not_hold_it(
    quick: Settings, connection: psycopg.Connection, last: datetime
) -> None:
    reader = Reader(quick, connection)
    Sender(quick).send(1, event(last))
    sender = Sender(quick, transactions=True)
    sender.producer.begin_transaction()
    # An hour after the one of the event, and in the present one.
    sender.send(0, event(last + HOUR), timestamp=last + HOUR)
    try:
        until_closed(reader, last, lambda: None)
        assert reader.closed()[last] == "quiet"
        assert last + HOUR not in reader.closed()
        assert reader.held_by() == "partition 0: 1 in or behind an open transaction"
    finally:
        sender.producer.abort_transaction(30)


def until_closed(reader: Reader, hour: datetime, meanwhile: Callable[[], None]) -> float:
    """Read and look until the hour is closed; after how many seconds it was."""
    began = time.monotonic()
    while hour not in reader.closed():
        assert time.monotonic() - began < QUIET.total_seconds() + 60, reader.held_by()
        reader.read()
        meanwhile()
        reader.look()
        time.sleep(0.2)
    return time.monotonic() - began


Traffic = Callable[[Sender, datetime, int], None]


def _garbage(sender: Sender, _now: datetime, number: int) -> None:
    sender.send(0, b"no event %d" % number)


def _old(sender: Sender, now: datetime, number: int) -> None:
    sender.send(0, event(now - timedelta(days=20) + number * SECOND))


def _old_with_its_own_record_times(sender: Sender, now: datetime, number: int) -> None:
    then = now - timedelta(days=20) + number * SECOND
    sender.send(0, event(then), timestamp=then)


@pytest.mark.parametrize("traffic", [_garbage, _old, _old_with_its_own_record_times])
def test_row_26_a_partition_that_is_never_read_out_holds_an_ended_hour_for_no_longer_than_quiet(
    quick: Settings,
    connection: psycopg.Connection,
    last: datetime,
    traffic: Traffic,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    reader, sender = Reader(quick, connection), Sender(quick)
    sender.send(1, event(last))
    numbers = iter(range(10**6))
    summed_up = plain_stream.summed_up

    def meanwhile() -> None:
        traffic(sender, database_now(connection), next(numbers))

    def summed_up_while_more_comes(*arguments: object) -> object:
        meanwhile()
        return summed_up(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(plain_stream, "summed_up", summed_up_while_more_comes)
    meanwhile()
    # Other partitions of the topic never had a message, and new ones come.
    add_partitions(quick, 6)
    seconds = until_closed(reader, last, meanwhile)
    assert reader.closed()[last] in ("quiet", "watermark")
    assert reader.left().keys() == {0}
    record_property("seconds", round(seconds, 1))
    assert seconds < QUIET.total_seconds() + 30


def test_row_26_beside_a_silent_partition_one_event_every_few_seconds_closes_by_the_clock(
    quick: Settings, connection: psycopg.Connection, last: datetime
) -> None:
    reader, sender = Reader(quick, connection), Sender(quick)
    sender.send(0, event(last - 5 * HOUR))
    sender.send(1, event(last))
    assert reader.read()
    assert reader.closed()[last] == "clock"


def test_row_26_catching_up_a_week_closes_each_hour_once(
    settings: Settings, connection: psycopg.Connection, last: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, sender = Reader(settings, connection), Sender(settings)
    first = last - 7 * 24 * HOUR
    # By Kafka's record times all of it was written just now: only the events' own tell that a week is caught up.
    hours = [first + number * HOUR for number in range(7 * 24)]
    for partition in range(4):
        sender.send(partition, *(event(hour) for hour in hours for _ in range(3)))
    monkeypatch.setattr(plain_stream, "MESSAGES_PER_BATCH", 150)
    batches = 0
    while reader.read():
        batches += 1
        reader.look()
    reader.look()
    assert batches > 10
    late = connection.execute("SELECT sum(late_rows)::int FROM ledger.batch").fetchone()
    assert late == (0,)
    rows = connection.execute("SELECT hour, rows, closed_by IS NOT NULL FROM ledger.hour ORDER BY hour")
    assert [row for row in rows.fetchall() if row[1]] == [(hour, 12, True) for hour in hours]


def test_row_26_kafka_says_from_which_offset_on_its_records_are_of_an_instant_or_later(
    quick: Settings, connection: psycopg.Connection, last: datetime
) -> None:
    reader, sender = Reader(quick, connection), Sender(quick)
    broker = Broker(quick.kafka_bootstrap or "", quick.topic)
    for number in range(4):
        sender.send(0, b"x", timestamp=last + number * HOUR / 2)
    sender.send(1, b"x", timestamp=last - HOUR)
    assert broker.first_at(reader.topic, last + HOUR) == {0: 2, 1: None, 2: None, 3: None}
    hours = [last - HOUR, last, last + HOUR]
    assert read_past(broker, reader.topic, {0: Backlog(2, 4, 4)}, hours) == last + HOUR
    assert read_past(broker, reader.topic, {0: Backlog(1, 4, 4)}, hours) == last
    assert read_past(broker, reader.topic, {0: Backlog(2, 4, 4), 1: Backlog(0, 1, 1)}, hours) is None
    # One of the future counts as one of now.
    sender.send(2, b"x", timestamp=database_now(connection) + HOUR / 2)
    assert read_past(broker, reader.topic, {2: Backlog(0, 1, 1)}, hours[:2]) == last + HOUR


@contextmanager
def host_clock(ahead: timedelta) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "host_now", lambda: datetime.now(UTC) + ahead)
        yield


@pytest.mark.parametrize("ahead", [timedelta(days=365), -HOUR], ids=["a year ahead", "an hour behind"])
def test_row_26_a_host_with_a_wrong_clock_closes_and_rejects_nothing_by_it_and_is_named(
    settings: Settings,
    connection: psycopg.Connection,
    new_stream: Callable[[], Stream],
    ahead: timedelta,
) -> None:
    now = database_now(connection)
    # Two hours ago: the last hour is open for a minute after its end.
    Sender(settings).send(0, event(now), event(now - 2 * HOUR))
    with host_clock(ahead):
        new_stream().read_available()
        shown = told_by_status(settings, connection)
    assert "stream's clock" in shown
    assert "clock here" in shown
    assert metric(settings, "antenna_stream_clock_wrong") == 1
    assert connection.execute("SELECT rows, quarantined FROM ledger.batch").fetchall() == [(2, 0)]
    ((newest,),) = connection.execute("SELECT max(hour) FROM ledger.hour WHERE closed_at IS NOT NULL")
    assert newest < now
    new_stream().read_available()
    assert "stream's clock" not in told_by_status(settings, connection)


# Each for a reason: what is shown to a person, an age of files on this host, what stands for devices or for Dagster.
HOST_CLOCK = {
    "antenna_assets/ledger/anchors.py",
    "antenna_assets/clients/clock.py",
    "antenna_assets/cli/console.py",
    "antenna_assets/defs/backfill_launch.py",
    "antenna_assets/publishing/delta_commit.py",
    "antenna_assets/engines/duckdb.py",
    "antenna_assets/storage/files.py",
    "antenna_assets/operations/quarantine/reparse.py",
    "antenna_assets/operations/report/write.py",
    "antenna_assets/simulator/live.py",
    "antenna_assets/simulator/run.py",
    "antenna_assets/streaming/spark/land.py",
}


def test_row_26_no_other_module_reads_this_hosts_own_clock() -> None:
    root = Path(antenna_assets.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                of = (node.value.id, node.attr)
                if of in {("datetime", "now"), ("datetime", "utcnow"), ("time", "time"), ("time", "time_ns")}:
                    found.add(str(path.relative_to(root.parent)))
    assert found == HOST_CLOCK


@SPARK
def test_row_26_a_stream_that_does_not_come_to_read_closes_hours_all_the_same(
    settings: Settings, connection: psycopg.Connection, last: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(settings, connection)
    Sender(settings).send(0, event(last))
    reader.read()
    connection.execute("UPDATE ledger.hour SET closed_at = NULL, closed_by = NULL WHERE hour = %s", [last])

    def no_spark(*_: object) -> None:
        raise StreamError("Spark does not start")

    monkeypatch.setattr(reader_module, "start_spark", no_spark)
    stream = Stream(
        settings,
        postgres_url=settings.postgres_url or "",
        kafka_bootstrap=settings.kafka_bootstrap or "",
        say=lambda _line: None,
        stop=threading.Event(),
    )
    with pytest.raises(StreamError, match="Spark does not start"):
        stream.read_available()
    assert reader.closed()[last] == "clock"


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_25_beside_garbage_old_events_and_transactions_every_message_is_committed_in_time(
    settings: Settings,
    connection: psycopg.Connection,
    stream_spark: "SparkSession | None",
    last: datetime,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    quick = settings.model_copy(update={"quiet": QUIET, "lateness": SECOND})
    sender, transactions = Sender(quick), Sender(quick, transactions=True)
    sent = 0

    def open_or_closed(number: int) -> int:
        transactions.producer.begin_transaction()
        transactions.send(3, event(database_now(connection)))
        if number % 2:
            transactions.producer.abort_transaction(30)
            return 0
        transactions.producer.commit_transaction(30)
        return 1

    with running(quick, stream_spark):
        sender.send(1, event(last))
        began = time.monotonic()
        number = 0
        while time.monotonic() - began < (120 if proving else 12):
            _garbage(sender, database_now(connection), number)
            now = database_now(connection)
            sender.send(2, event(now - timedelta(days=20) + number * SECOND))
            sent += 2 + open_or_closed(number)
            # One event every 2.7 seconds beside them.
            if number % 9 == 0:
                sender.send(1, event(now))
                sent += 1
            number += 1
            time.sleep(0.3)
        wait_until(lambda: committed(quick) == sent + 1, 60)
        wait_until(lambda: last in Reader(quick, connection).closed(), QUIET.total_seconds() + 60)
    record_property("messages", sent)
    record_property("hours that have ended and are open", 0)


def test_row_26_a_step_of_postgresqls_clock_is_said_by_the_stream(
    settings: Settings, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    committer = Committer(settings, broker, say=said.append, on_commit=lambda: None)
    Reader(settings, connection)
    committer.heartbeat(connection)
    assert said == []
    monkeypatch.setattr(clock, "database_now", lambda of: database_now(of) - HOUR)
    committer.heartbeat(connection)
    assert said[0].startswith("PostgreSQL's clock was set back by 1:00:0")
