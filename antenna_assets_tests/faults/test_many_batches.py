"""proofs.md, row 14: after thousands of micro-batches a commit takes as long, and as much memory, as at first."""

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.ledger.head import Head
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings
from antenna_assets.streaming import committer
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.end_to_end.runs import instance, publish_what_the_sensor_asks_for
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.stream_engines import EMBEDDED, SPARK, limit_batches

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.services

MESSAGES_PER_BATCH = 8
LOOKS = 5
"""How often memory is measured, at each of two places."""

MOST_GROWTH_MB = 64
Record = Callable[[str, object], None]


@contextmanager
def commits_timed(
    monkeypatch: pytest.MonkeyPatch, after_each: Callable[[int], None]
) -> Iterator[list[float]]:
    """The seconds of each of the stream's commits; `after_each` is told how many there were."""
    seconds: list[float] = []
    commit_batch = committer.commit_batch

    def timed(*arguments: Any, **named: Any) -> Head:
        began = time.perf_counter()
        found = commit_batch(*arguments, **named)
        seconds.append(time.perf_counter() - began)
        after_each(len(seconds))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(committer, "commit_batch", timed)
        limit_batches(patch, MESSAGES_PER_BATCH)
        yield seconds


def new_stream(settings: Settings, *, stop: threading.Event, spark: "SparkSession | None" = None) -> Stream:
    """The stream that the settings name, in this process."""
    return Stream(
        settings,
        postgres_url=settings.postgres_url or "",
        kafka_bootstrap=settings.kafka_bootstrap or "",
        say=lambda _line: None,
        stop=stop,
        spark=spark,
    )


def record_commits(record: Record, seconds: list[float], proving: bool) -> None:
    """The median commit of the first and the last tenth; in the long form they must be alike."""
    tenth = max(1, len(seconds) // 10)
    first, last = statistics.median(seconds[:tenth]), statistics.median(seconds[-tenth:])
    record("micro-batches", len(seconds))
    record("median commit of the first tenth, ms", round(first * 1000, 1))
    record("median commit of the last tenth, ms", round(last * 1000, 1))
    assert not proving or last < 2 * first


def python_mb() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss // 2**20


def assert_published_in_one_file(settings: Settings, answers: Path, record: Record) -> None:
    """The hours are published from thousands of landed files, exact, each as one file of each lake table."""
    with instance() as dagster:
        assert publish_what_the_sensor_asks_for(dagster) >= 1
    assert_exact(settings, answers, published=True)
    with connect(settings.postgres_url or "") as connection:
        hours = connection.execute(
            "SELECT hour, count(*) FROM ledger.file WHERE kind = 'landed' GROUP BY hour"
        ).fetchall()
    for hour, _ in hours:
        for table in LAKE_TABLES:
            assert len(Lake(settings.lake_uri).hour(table, hour).files) == 1
    record("the largest hour", f"one published file from {max(files for _, files in hours):,} landed ones")


@SPARK
@pytest.mark.rounds(6)
@pytest.mark.timeout(1_500)
def test_row_14_thousands_of_micro_batches_with_spark_leave_commits_and_memory_as_they_were(
    settings: Settings,
    spark: "SparkSession",
    tmp_path: Path,
    proving: bool,
    round_: int,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
) -> None:
    batches = 500 if proving else 30
    answers = tmp_path / "answers.json"
    send(settings, answers, seed=round_, events=batches * MESSAGES_PER_BATCH, hours=1)
    stop = threading.Event()
    # From a tenth on, when caches are filled and code is compiled.
    looks: dict[int, list[tuple[int, int]]] = {batches // 10: [], batches - LOOKS + 1: []}

    def after_each(count: int) -> None:
        # First: meanwhile Spark plans the next micro-batch, and the measurement takes its time.
        if count == batches:
            stop.set()
        for first, found in looks.items():
            if first <= count < first + LOOKS:
                spark._jvm.System.gc()
                runtime = spark._jvm.Runtime.getRuntime()
                found.append((python_mb(), (runtime.totalMemory() - runtime.freeMemory()) // 2**20))

    with commits_timed(monkeypatch, after_each) as seconds:
        began = time.monotonic()
        new_stream(settings, stop=stop, spark=spark).read_available()
        record_property("s per micro-batch", round((time.monotonic() - began) / len(seconds), 2))
    # The one that was under way when the stream was stopped may be one more.
    assert len(seconds) in (batches, batches + 1)
    record_commits(record_property, seconds, proving)
    # The least of some: the next micro-batch has begun, and may hold its rows at one of them.
    (python_before, java_before), (python_after, java_after) = (
        [min(memory) for memory in zip(*found, strict=True)] for found in looks.values()
    )
    record_property("Python's memory after a tenth and at the end, MB", f"{python_before} and {python_after}")
    record_property("Java's heap after a tenth and at the end, MB", f"{java_before} and {java_after}")
    assert not proving or python_after - python_before < MOST_GROWTH_MB
    assert not proving or java_after - java_before < MOST_GROWTH_MB
    new_stream(settings, stop=threading.Event(), spark=spark).read_available()
    assert_published_in_one_file(settings, answers, record_property)


@EMBEDDED
@pytest.mark.timeout(1_500)
def test_row_14_thousands_of_micro_batches_without_spark_leave_commits_and_memory_as_they_were(
    settings: Settings,
    tmp_path: Path,
    proving: bool,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
) -> None:
    batches = 7_000 if proving else 100
    answers = tmp_path / "answers.json"
    send(settings, answers, events=batches * MESSAGES_PER_BATCH, hours=1)
    memory: list[int] = []

    def after_each(count: int) -> None:
        if count in (batches // 10, batches):
            memory.append(python_mb())

    with commits_timed(monkeypatch, after_each) as seconds:
        began = time.monotonic()
        new_stream(settings, stop=threading.Event()).read_available()
        record_property("s per micro-batch", round((time.monotonic() - began) / len(seconds), 3))
    # Where a poll found fewer messages there is one more.
    assert len(seconds) >= batches
    record_commits(record_property, seconds, proving)
    before, after = memory
    record_property("memory after a tenth and at the end, MB", f"{before} and {after}")
    assert not proving or after - before < MOST_GROWTH_MB
    assert_published_in_one_file(settings, answers, record_property)
