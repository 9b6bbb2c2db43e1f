"""The streaming job on real Kafka and PostgreSQL, with both readers: what lands, what is refused, how it starts and stops."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.kafka_broker import BrokerError
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.schema import LANDED_SCHEMA, REJECTED_SCHEMA
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.commit import commit_batch
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.settings import Settings
from antenna_assets.streaming import committer
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.live import wait_until
from antenna_assets_tests.faults.processes import Process
from antenna_assets_tests.faults.runs import LIVE_STREAM, STREAM, send
from antenna_assets_tests.faults.topics import change_config
from antenna_assets_tests.stream_engines import EACH_ENGINE, after_each_landing, limit_batches

pytestmark = pytest.mark.services

NOW = datetime.now(UTC)
HOUR = (NOW - timedelta(hours=2)).replace(minute=0, second=0, microsecond=0)


def event(**fields: object) -> bytes:
    values = {"bytes": 10, "timestamp": int(HOUR.timestamp()), "app": "SKYPE", "id": "u1", "antenna_id": "a1"}
    return json.dumps({**values, **fields}).encode()


def produce(settings: Settings, values: list[bytes | None], partition: int = 0) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "enable.idempotence": True})
    for value in values:
        producer.produce(settings.topic, value, partition=partition)
    assert producer.flush(30) == 0


@pytest.fixture
def ledger(settings: Settings) -> Iterator[psycopg.Connection]:
    with connect(settings.postgres_url or "") as connection:
        yield connection


def rows(settings: Settings, ledger: psycopg.Connection, kind: str) -> list[dict]:
    paths = ledger.execute("SELECT path FROM ledger.file WHERE kind = %s ORDER BY path", [kind]).fetchall()
    tables = [pq.read_table(Path(settings.lake_uri) / path, partitioning=None) for (path,) in paths]
    for table in tables:
        expected = LANDED_SCHEMA if kind == "landed" else REJECTED_SCHEMA
        assert (table.schema.names, table.schema.types) == (expected.names, expected.types)
    found = [row for table in tables for row in table.to_pylist()]
    return sorted(found, key=lambda row: (row["kafka_partition"], row["kafka_offset"]))


@EACH_ENGINE
def test_good_and_bad_messages_land_where_they_belong(
    settings: Settings, new_stream: Callable[[], Stream], ledger: psycopg.Connection
) -> None:
    iso = (HOUR + timedelta(hours=1, minutes=7, microseconds=250_000)).isoformat()
    bad = {
        "not_json": b"{",
        "trailing_data": event() + b"x",
        "not_an_object": b"[1]",
        "duplicate_field": event()[:-1] + b', "app": "SKYPE"}',
        "missing_field": b'{"bytes": 1}',
        "wrong_type": event(bytes="12"),
        "negative_bytes": event(bytes=-1),
        "bytes_out_of_range": event(bytes=2**36 + 1),
        "blank": None,
        "too_long": event(app="x" * 257),
        "not_utf8": b"\xff",
        "unstorable_text": event(id="a\0b"),
        "timestamp_in_future": event(timestamp="2999-01-01T00:00:00Z"),
        "timestamp_too_old": event(timestamp=0),
    }
    produce(settings, [event(), event(timestamp=iso, app="caf\u00e9", bytes=2**36), *bad.values()])
    new_stream().read_available()
    landed = rows(settings, ledger, "landed")
    assert landed == [
        {
            "timestamp": HOUR,
            "app": "SKYPE",
            "id": "u1",
            "antenna_id": "a1",
            "bytes": 10,
            "kafka_partition": 0,
            "kafka_offset": 0,
        },
        {
            "timestamp": datetime.fromisoformat(iso),
            "app": "caf\u00e9",
            "id": "u1",
            "antenna_id": "a1",
            "bytes": 2**36,
            "kafka_partition": 0,
            "kafka_offset": 1,
        },
    ]
    rejected = rows(settings, ledger, "rejected")
    assert [(row["reason"], row["value"]) for row in rejected] == list(bad.items())
    assert [row["kafka_offset"] for row in rejected] == list(range(2, 2 + len(bad)))
    assert dict(ledger.execute("SELECT reason, rows FROM ledger.rejection").fetchall()) == dict.fromkeys(
        bad, 1
    )
    assert ledger.execute("SELECT date, app, sum_app_bytes FROM bytes_agg_app ORDER BY date").fetchall() == [
        (HOUR, "SKYPE", 10),
        (HOUR + timedelta(hours=1, minutes=5), "caf\u00e9", 2**36),
    ]


@EACH_ENGINE
def test_a_topic_without_messages_is_read_to_its_end_without_a_batch(
    new_stream: Callable[[], Stream], ledger: psycopg.Connection
) -> None:
    new_stream().read_available()
    assert ledger.execute("SELECT count(*) FROM ledger.batch").fetchone() == (0,)


@EACH_ENGINE
def test_a_lost_checkpoint_means_to_go_on_from_the_ledger(
    settings: Settings, new_stream: Callable[[], Stream], ledger: psycopg.Connection
) -> None:
    for number in range(3):
        produce(settings, [event(bytes=number)], partition=number)
        new_stream().read_available()
        assert checkpoints(settings) == []
    assert ledger.execute("SELECT sum(rows), count(*) FROM ledger.batch").fetchone() == (3, 3)


@EACH_ENGINE
def test_a_ledger_that_moved_under_the_stream_is_not_written(
    settings: Settings,
    new_stream: Callable[[], Stream],
    ledger: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def commit_after_another(*arguments: object, **named: object) -> object:
        # What a stalled stream does that lost its lock with its connection: the same offsets, first.
        commit_batch(ledger, *arguments[1:], **named)  # type: ignore[arg-type]
        return commit_batch(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(committer, "commit_batch", commit_after_another)
    produce(settings, [event()])
    with pytest.raises(LedgerError, match="another stream wrote to it"):
        new_stream().read_available()
    assert ledger.execute("SELECT sum(rows) FROM ledger.batch").fetchone() == (1,)


def landings(monkeypatch: pytest.MonkeyPatch, number: int) -> tuple[list[str], threading.Event]:
    """The folders of the micro-batches that are written from now on, and what is set once there are so many."""
    so_many = threading.Event()
    landed: list[str] = []

    def tell(folder: str) -> None:
        landed.append(folder)
        if len(landed) == number:
            so_many.set()

    after_each_landing(monkeypatch, tell)
    return landed, so_many


def checkpoints(settings: Settings) -> list[Path]:
    """What is left of Spark's checkpoints; the embedded reader has none."""
    return list((settings.home / "checkpoints").glob("*"))


@EACH_ENGINE
def test_the_next_micro_batch_lands_while_one_is_committed(
    settings: Settings,
    new_stream: Callable[[], Stream],
    ledger: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    landed, second_landed = landings(monkeypatch, 2)

    def commit_after_the_second_landed(*arguments: object, **named: object) -> object:
        assert second_landed.wait(60)
        return commit_batch(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(committer, "commit_batch", commit_after_the_second_landed)
    limit_batches(monkeypatch, 10)
    produce(settings, [event(bytes=number) for number in range(30)])
    new_stream().read_available()
    ranges = ledger.execute(
        "SELECT batch, from_offset, until_offset FROM ledger.batch_offset ORDER BY batch"
    ).fetchall()
    assert ranges == [(1, 0, 10), (2, 10, 20), (3, 20, 30)]
    assert [folder.split("-")[0] for folder in landed] == ["landing/1", "landing/2", "landing/3"]


@EACH_ENGINE
def test_what_landed_behind_a_commit_that_failed_is_not_committed_and_leaves_no_file(
    settings: Settings,
    new_stream: Callable[[], Stream],
    ledger: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    landed, third_landed = landings(monkeypatch, 3)
    commits: list[int] = []

    def fail_the_second(*arguments: object, **named: object) -> object:
        commits.append(1)
        if len(commits) == 2:
            assert third_landed.wait(60)
            raise LedgerError("the second commit fails")
        return commit_batch(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(committer, "commit_batch", fail_the_second)
        limit_batches(patch, 10)
        produce(settings, [event(bytes=number) for number in range(40)])
        with pytest.raises(LedgerError, match="the second commit fails"):
            new_stream().read_available()
    assert checkpoints(settings) == []
    assert ledger.execute("SELECT batch, rows FROM ledger.batch").fetchall() == [(1, 10)]
    kept = [path.name for path in (Path(settings.lake_uri) / "landing").iterdir()]
    assert [f"landing/{name}" for name in kept] == landed[:1]
    new_stream().read_available()
    assert ledger.execute("SELECT sum(rows) FROM ledger.batch").fetchone() == (40,)


@EACH_ENGINE
def test_a_lake_that_cannot_be_written_is_named_before_anything_is_read(
    settings: Settings, new_stream: Callable[[], Stream], ledger: psycopg.Connection
) -> None:
    Path(settings.lake_uri).write_text("a file where the lake should be")
    produce(settings, [event()])
    with pytest.raises(AntennaError, match="cannot be written: .*ANTENNA_LAKE"):
        new_stream().read_available()
    assert ledger.execute("SELECT count(*) FROM ledger.batch").fetchone() == (0,)


@EACH_ENGINE
def test_rows_that_are_lost_on_their_way_to_the_disk_are_not_committed(
    settings: Settings,
    new_stream: Callable[[], Stream],
    ledger: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lose_a_file(folder: str) -> None:
        next((Path(settings.lake_uri) / folder).glob("hour=*/*.parquet")).unlink()

    after_each_landing(monkeypatch, lose_a_file)
    produce(settings, [event()] * 3)
    with pytest.raises(AntennaError, match="read 3 messages and found 0 rows"):
        new_stream().read_available()
    assert ledger.execute("SELECT count(*) FROM ledger.batch").fetchone() == (0,)


@EACH_ENGINE
def test_a_compacted_topic_is_refused(settings: Settings, new_stream: Callable[[], Stream]) -> None:
    change_config(settings.kafka_bootstrap or "", settings.topic, {"cleanup.policy": "compact"})
    with pytest.raises(BrokerError, match="expected cleanup.policy=delete"):
        new_stream().read_available()


@EACH_ENGINE
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_running_stream_stops_cleanly(
    settings: Settings, ledger: psycopg.Connection, how: signal.Signals
) -> None:
    def landed() -> bool:
        return ledger.execute("SELECT sum(rows) FROM ledger.batch").fetchone() == (2,)

    produce(settings, [event(), event(bytes=5)])
    with Process(settings, LIVE_STREAM) as process:
        wait_until(landed)
        # As a terminal does: Ctrl-C reaches every process of the group.
        process.stop(how)
        code, said = process.wait(60), process.said
    assert code == 0, said
    assert "Traceback" not in said
    assert "stopped" in said
    assert checkpoints(settings) == []


def test_on_a_cluster_of_several_processes_spark_makes_the_sums_too(
    settings: Settings, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    send(settings, answers, events=2_000)
    on_a_cluster = {"ANTENNA_ENGINE": "spark", "ANTENNA_SPARK_MASTER": "local-cluster[2,1,1024]"}
    with Process(settings, STREAM, **on_a_cluster) as process:
        code, said = process.wait(180), process.said
    assert code == 0, said
    assert_exact(settings, answers)


@EACH_ENGINE
def test_the_clock_closes_the_hours_of_an_idle_stream(settings: Settings, ledger: psycopg.Connection) -> None:
    # One partition far behind the others keeps the watermark of events back.
    produce(settings, [event(timestamp=int(HOUR.timestamp()))], partition=0)
    produce(settings, [event(timestamp=int(NOW.timestamp()))], partition=1)

    def closed() -> bool:
        return ledger.execute("SELECT closed_by FROM ledger.hour WHERE hour = %s", [HOUR]).fetchone() == (
            "clock",
        )

    with Process(settings, LIVE_STREAM) as process:
        wait_until(closed)
        process.stop()
        process.wait(60)
    assert ledger.execute("SELECT heartbeat_at IS NOT NULL FROM ledger.head").fetchone() == (True,)
