"""Row 32 of docs/proofs.md: whatever a record's time, key and headers are, and however large it is, the stream goes on."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect
from antenna_assets.settings import Settings
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.exactness import named_by_the_ledger
from antenna_assets_tests.faults.processes import Process
from antenna_assets_tests.faults.runs import STREAM
from antenna_assets_tests.faults.topics import let_senders_choose_times
from antenna_assets_tests.java_homes import java_home_with
from antenna_assets_tests.stream_engines import EACH_ENGINE

pytestmark = pytest.mark.services

# Milliseconds of Kafka: what overflows microseconds on either side, and what no calendar here has.
HOSTILE_TIMES = (
    -(2**63),
    -9_300_000_000_000_000,
    9_300_000_000_000_000,
    2**63 - 1,
    -62_135_596_800_001,
    253_402_300_800_000,
    -1,
    0,
)


def event(number: int, **fields: object) -> bytes:
    values = {"bytes": number, "timestamp": int(time.time()), "app": "SKYPE", "id": "u1", "antenna_id": "a1"}
    return json.dumps({**values, **fields}).encode()


def produce(settings: Settings, records: Iterator[dict[str, Any]]) -> int:
    from confluent_kafka import Producer

    failed: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "compression.type": "zstd",
            "message.max.bytes": 1_000_000_000,
            "queue.buffering.max.kbytes": 2_000_000,
            "on_delivery": lambda error, _message: failed.append(error) if error else None,
        }
    )
    sent = 0
    for record in records:
        producer.produce(settings.topic, **record)
        producer.poll(0)
        sent += 1
    assert producer.flush(60) == 0
    assert failed == []
    return sent


@pytest.fixture
def ledger(settings: Settings) -> Iterator[psycopg.Connection]:
    with connect(settings.postgres_url or "") as connection:
        yield connection


def antenna(*arguments: str) -> str:
    run = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert run.exit_code == 0, (run.output, run.exception)
    return run.output


def fuzzed(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Good events and bad messages in hostile envelopes."""
    rng = random.Random(f"envelopes {seed}")
    for number in range(count):
        millis = rng.choice((*HOSTILE_TIMES, int(time.time() * 1000), rng.randrange(-(2**63), 2**63)))
        headers = [
            (rng.choice(("", "h", "é" * 50)), rng.choice((None, b"", rng.randbytes(30))))
            for _ in range(rng.randrange(3))
        ]
        yield {
            "value": rng.choice((event(number), None, b"{")),
            "key": rng.choice((None, b"", rng.randbytes(40), b"k" * 10_000)),
            "headers": headers,
            "timestamp": millis,
            "partition": number % 4,
        }


@EACH_ENGINE
def test_row_32_fuzzed_times_keys_and_headers_stop_no_stream_and_are_read_in_the_quarantine(
    settings: Settings,
    new_stream: Callable[[], Stream],
    ledger: psycopg.Connection,
    tmp_path: Path,
    proving: bool,
) -> None:
    let_senders_choose_times(settings)
    sent = produce(settings, fuzzed(1, 20_000 if proving else 400))
    new_stream().read_available()
    # What is sent next is read by Spark again, if it is Spark's stream.
    sent += produce(settings, iter([{"value": event(1), "partition": 0}]))
    new_stream().read_available()
    assert len(named_by_the_ledger(settings)) == sent
    (rejected,) = ledger.execute("SELECT sum(quarantined) FROM ledger.batch").fetchone() or (0,)
    assert "not_json" in antenna("quarantine", "list")
    for name in ("out.jsonl", "out.parquet"):
        assert f"wrote {rejected:,} messages" in antenna(
            "quarantine", "export", "--output", str(tmp_path / name)
        )
    times = [
        json.loads(line)["kafka_timestamp"] for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ]
    assert {"0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999000+00:00"} <= set(times)
    row = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert "Kafka time" in antenna("quarantine", "show", str(row["partition"]), str(row["offset"]))
    # In a process of its own: a replay ends its Spark session, which in this one is that of all tests.
    replay = (sys.executable, "-m", "antenna_assets.cli", "quarantine", "replay", "--all", "--dry-run")
    done = subprocess.run(replay, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "stays" in done.stdout.lower()


SMALL_HEAP = "-Xmx600m"


def large(count: int) -> Iterator[dict[str, Any]]:
    """Good events of a megabyte."""
    return ({"value": event(number, more=" " * 1_000_000), "partition": 1} for number in range(count))


@pytest.mark.timeout(900)
def test_row_32_a_record_that_no_memory_holds_is_named_and_stepped_over_and_large_good_ones_land(
    settings: Settings, tmp_path: Path, proving: bool
) -> None:
    small = str(java_home_with(tmp_path / "java", last_word=SMALL_HEAP))
    sent = produce(settings, large(40))
    sent += produce(settings, iter([{"value": event(1), "partition": 0}]))
    # 18 kB in Kafka.
    produce(settings, iter([{"value": b" " * 600_000_000, "partition": 0}]))
    behind = produce(settings, ({"value": event(number), "partition": 0} for number in range(3)))
    with Process(settings, STREAM, JAVA_HOME=small) as process:
        code, said = process.wait(400), process.said
    assert code == 1, said
    assert "Traceback" not in said
    words = " ".join(said.split())
    assert "the record at offset 1 cannot be read" in words
    assert "antenna accept-loss --skip 0 1" in words
    assert len(named_by_the_ledger(settings)) == sent
    antenna("accept-loss", "--skip", "0", "1", "--reason", "600 MB of spaces")
    # So many, on so small a heap, end Java once more, and the next one reads on in the same process.
    sent += behind + produce(settings, large(500 if proving else 20))
    with Process(settings, STREAM, JAVA_HOME=small) as process:
        code, said = process.wait(400), process.said
    assert code == 0, said
    assert len(named_by_the_ledger(settings)) == sent
