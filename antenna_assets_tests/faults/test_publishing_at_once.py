"""proofs.md, row 18: who publishes the same hours at the same time waits or gives way: no deadlock, no error, no hour twice."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from antenna_assets import failpoints as crash
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.domain.schema import ASSETS, LAKE_TABLES
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings
from antenna_assets.simulator.run import AnswersFile, simulate
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.simulator.send import Target
from antenna_assets.verify.run import verify
from antenna_assets_tests.end_to_end.runs import instance
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.publish import publish_hour
from antenna_assets_tests.faults.workers import (
    Worker,
    backfill,
    backfill_until,
    complaints,
    deadlocks,
    new_gate,
    new_stop,
    passages,
    publish_in_step,
    read_and_publish,
    runs_of,
    waits_for_a_lock,
)
from antenna_assets_tests.local_runs import execute, publish, tick

pytestmark = pytest.mark.services

Record = Callable[[str, object], None]


def pauses(proving: bool) -> list[str]:
    """Each point of a publication at each passage; in the suite each point at one of its passages."""
    # A table is made once, and these have hours already.
    of_an_hour = {point for point in crash.POINTS if point.startswith("publish.")} - {"publish.lake.created"}
    points = sorted(of_an_hour)
    if proving:
        return [f"{point}:{n}:pause" for point in points for n in range(1, passages(point) + 1)]
    return [f"{point}:{place % passages(point) + 1}:pause" for place, point in enumerate(points)]


def the_last(count: int) -> list[datetime]:
    """Hours that are over."""
    end = hour_of(datetime.now(UTC) - timedelta(minutes=2))
    return [end - number * HOUR for number in range(count, 0, -1)]


def send(settings: Settings, answers: Path, hours: Sequence[datetime], *, seed: int, events: int) -> None:
    """Send events of these hours, which follow each other."""
    simulate(
        settings,
        Scenario(
            events=events, seed=seed, start=hours[0], hours=len(hours), malformed=0.02, unknown_users=0.05
        ),
        Target(settings.kafka_bootstrap or "", settings.topic),
        answers=AnswersFile(answers, append=answers.exists()),
    )


def doubled_hours(settings: Settings, hours: Sequence[datetime]) -> int:
    """The hours of lake tables that do not hold each row of their generation once."""
    lake = Lake(settings.lake_uri)
    with connect(settings.postgres_url or "") as connection:
        rows = dict(
            connection.execute("SELECT hour, rows FROM ledger.hour WHERE hour = ANY(%s)", [list(hours)])
        )
    return sum(lake.hour(table, hour).rows != rows[hour] for table in LAKE_TABLES for hour in hours)


def assert_published(settings: Settings, hours: Sequence[datetime], generation: int) -> None:
    """Every asset, and each lake table, is at this generation."""
    with connect(settings.postgres_url or "") as connection:
        heads = connection.execute(
            "SELECT asset, hour, generation FROM ledger.publication_head WHERE hour = ANY(%s)", [list(hours)]
        ).fetchall()
    assert sorted(heads) == sorted((asset, hour, generation) for asset in ASSETS for hour in hours)
    lake = Lake(settings.lake_uri)
    assert {lake.hour(table, hour).generation for table in LAKE_TABLES for hour in hours} == {generation}


def assert_all_is_well(settings: Settings, answers: Path, hours: Sequence[datetime], record: Record) -> None:
    """Tables equal the answers, certificates what was published; nothing was doubled, nobody was in a deadlock."""
    assert_exact(settings, answers, published=True)
    with connect(settings.postgres_url or "") as connection:
        assert verify(connection, Lake(settings.lake_uri), kept_since=hours[0]).differences == []
        (count,) = connection.execute("SELECT count(*) FROM ledger.publication").fetchone() or (0,)
    doubled, locked = doubled_hours(settings, hours), deadlocks(settings)
    record("publications", count)
    record("doubled hours", doubled)
    record("deadlocks", locked)
    assert (doubled, locked) == (0, 0)


def test_row_18_an_older_generation_that_wakes_up_at_a_step_leaves_the_newer_one_as_it_is(
    settings: Settings,
    tmp_path: Path,
    proving: bool,
    record_property: Record,
    capfd: pytest.CaptureFixture[str],
) -> None:
    steps = pauses(proving)
    # Half of the steps are of a first publication, half of one that replaces another.
    again, first = steps[::2], steps[1::2]
    steps, hours, answers = [*again, *first], the_last(len(steps)), tmp_path / "answers.json"
    before = hours[: len(again)]
    send(settings, answers, hours, seed=1, events=60 * len(hours))
    read_everything(settings)
    with Worker(settings, tmp_path / "before", backfill, hour_key(before[0]), hour_key(before[-1])) as worker:
        worker.must_succeed()
    send(settings, answers, before, seed=2, events=60 * len(before))
    read_everything(settings)
    waited = 0
    for number, (step, hour) in enumerate(zip(steps, hours, strict=True)):
        key, said = hour_key(hour), tmp_path / f"worker-{number}"
        # The newer one is a thread: it needs no process of its own, as nobody pauses or kills it.
        with ThreadPoolExecutor(1) as pool, Worker(settings, said, publish_hour, key, crash_at=step) as older:
            older.wait_until_paused()
            send(settings, answers, [hour], seed=3 + number, events=40)
            newer = pool.submit(read_and_publish, key)
            while not newer.done() and not waits_for_a_lock(settings):
                time.sleep(0.05)
            waited += not newer.done()
            older.wake()
            newer.result(300)
            older.must_succeed()
        assert_published(settings, [hour], 3 if hour in before else 2)
        assert doubled_hours(settings, [hour]) == 0, step
    assert complaints(capfd.readouterr().err) == []
    record_property("paused workers that woke up", len(steps))
    record_property("newer generations that waited for a paused worker's lock", waited)
    assert_all_is_well(settings, answers, hours, record_property)


def test_row_18_publications_of_an_hour_at_once_leave_it_there_once(
    settings: Settings, tmp_path: Path, proving: bool, record_property: Record
) -> None:
    # In step, and a little after each other.
    rounds, workers = (15, 4) if proving else (2, 3)
    answers, hours = tmp_path / "answers.json", the_last(rounds)
    keys = [hour_key(hour) for hour in hours]
    # First publications, then those that replace them.
    for generation in (1, 2):
        send(settings, answers, hours, seed=generation, events=100 * rounds)
        read_everything(settings)
        gate = new_gate(workers)
        with ExitStack() as stack:
            started = [
                stack.enter_context(Worker(settings, tmp_path / f"worker-{n}", publish_in_step, gate, keys))
                for n in range(workers)
            ]
            for worker in started:
                worker.must_succeed()
        assert_published(settings, hours, generation)
    record_property("rounds", 2 * rounds)
    record_property("publications of an hour at once", workers)
    assert_all_is_well(settings, answers, hours, record_property)


def test_row_18_backfills_the_sensor_and_the_stream_work_on_the_same_hours(
    settings: Settings,
    tmp_path: Path,
    proving: bool,
    record_property: Record,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # At least, and until each backfill has ended once. What is under way then ends, so that each has run twice.
    seconds, workers = (90, 3) if proving else (0, 2)
    answers, hours = tmp_path / "answers.json", the_last(6)
    send(settings, answers, hours, seed=1, events=600)
    read_everything(settings)
    stop, batches = new_stop(), 0
    results: list[bool] = []
    failures: list[BaseException] = []

    def stream() -> None:
        nonlocal batches
        try:
            while not stop.is_set():
                batches += 1
                first = batches % 4
                send(settings, answers, hours[first : first + 3], seed=1 + batches, events=60)
                read_everything(settings)
                time.sleep(0.2)
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=stream)
    with ExitStack() as stack, instance() as dagster:
        # Ranges of four hours that overlap by two, and by three.
        ranges = [(hour_key(hours[n]), hour_key(hours[n + 3])) for n in (0, 2, 1)[:workers]]
        backfills = [
            stack.enter_context(Worker(settings, tmp_path / f"worker-{n}", backfill_until, stop, *range_))
            for n, range_ in enumerate(ranges)
        ]
        thread.start()
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end or any(w.running and runs_of(w) < 1 for w in backfills):
                for request in tick(dagster):
                    results.append(execute(dagster, request).success)
        finally:
            stop.set()
            thread.join(60)
        for worker in backfills:
            worker.must_succeed()
        results += [run.success for _hours, run in publish(dagster)]
    assert failures == []
    assert complaints(capfd.readouterr().err) == []
    record_property("late batches", batches)
    record_property("sensor's runs", len(results))
    record_property("backfill's runs", sum(map(runs_of, backfills)))
    record_property("failed runs", results.count(False))
    assert all(results)
    assert_all_is_well(settings, answers, hours, record_property)
