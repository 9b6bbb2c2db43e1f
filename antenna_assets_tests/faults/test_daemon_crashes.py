"""proofs.md, rows 15 and 16, with Dagster's real daemon, code server and run workers: killed, they leave nothing behind."""

import random
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.schema import ASSETS
from antenna_assets.ledger.hours_to_publish import hours_to_publish
from antenna_assets.settings import Settings
from antenna_assets_tests.end_to_end.runs import EXECUTE
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.dagster_daemon import Dagster, dagster, wait_for
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.runs import PLAIN_STREAM, send

pytestmark = pytest.mark.services

Record = Callable[[str, object], None]
INTERVAL = timedelta(seconds=30)
"""Of the sensor."""
# Where the worker, the stream and a run started by hand stand when everything is killed.
MOMENTS = (
    ("publish.table.copied", "stream.commit.last_statement", "publish.sealed"),
    ("publish.lake.files_written:2", "stream.land.after_sync", "publish.lake.committed"),
)


def everything_is_published(settings: Settings) -> bool:
    """No closed hour lacks a publication of the generation that covers its newest batch, by any of the six assets."""
    with connect(settings.postgres_url or "") as connection:
        return not hours_to_publish(connection, limit=1)


def published_hours(settings: Settings) -> int:
    """How many hours all six assets have published at the newest generation."""
    with connect(settings.postgres_url or "") as connection:
        (hours,) = connection.execute(
            "SELECT count(*) FROM ledger.hour WHERE (SELECT count(*) FROM ledger.publication_head AS head"
            "  WHERE head.hour = hour.hour AND head.generation = hour.generation) = %s",
            [len(ASSETS)],
        ).fetchone() or (0,)
    return int(hours)


def test_row_15_the_daemon_is_killed_around_the_sensors_ticks_and_every_closed_hour_is_published(
    settings: Settings, tmp_path: Path, proving: bool, record_property: Record
) -> None:
    answers = tmp_path / "answers.json"
    chance = random.Random(15)
    kills = 0
    send(settings, answers, seed=1, events=300)
    read_everything(settings)
    with dagster(settings, tmp_path / "home") as on:
        # The tick dies in the code server's process, the daemon and the rest with it.
        for point in ("sensor.before_requests", "sensor.before_query")[: 2 if proving else 1]:
            on.start(crash_at=point)
            wait_for(on.code_servers)
            (first,) = on.code_servers()
            wait_for(lambda first=first: first not in on.code_servers())
            kills += on.kill() and 1
            on.let_time_pass(INTERVAL)
        # The tick has asked, and its run is not launched yet.
        on.start()
        wait_for(on.runs)
        kills += on.kill_the_daemon() and 1
        on.let_time_pass(INTERVAL)
        # The run goes on without its daemon, and a newer batch for its hours supersedes it.
        on.start()
        wait_for(lambda: "STARTED" in on.runs().values())
        kills += on.kill_the_daemon() and 1
        wait_for(lambda: not on.in_progress())
        send(settings, answers, seed=2, events=300)
        read_everything(settings)
        for seed in range(3, 9 if proving else 3):
            on.let_time_pass(INTERVAL)
            ticks = on.ticks()
            on.start()
            wait_for(lambda ticks=ticks: on.ticks() > ticks)
            # Within the tick, while its run waits, is launched, starts, or goes on.
            time.sleep(chance.uniform(0, 8))
            kill = chance.choice([on.kill_the_daemon, on.kill_all_but_the_workers, on.kill])
            kills += kill() and 1
            send(settings, answers, seed=seed, events=300)
            read_everything(settings)
        on.let_time_pass(INTERVAL)
        on.start()
        seconds = wait_for(lambda: everything_is_published(settings), 280 if proving else 100)
        record_property("runs", len(on.runs()))
        record_property("ticks", on.ticks())
    assert_exact(settings, answers, published=True)
    record_property("kills", kills)
    record_property("hours published", published_hours(settings))
    record_property("every closed hour published after the last restart, s", round(seconds, 1))


def test_row_16_everything_is_killed_in_the_middle_of_a_run_and_no_run_hangs(
    settings: Settings, tmp_path: Path, proving: bool, record_property: Record
) -> None:
    answers = tmp_path / "answers.json"
    seconds: list[float] = []
    killed = 0
    with dagster(settings, tmp_path / "home") as on:
        for number, (worker_at, stream_at, by_hand_at) in enumerate(MOMENTS[: 2 if proving else 1]):
            send(settings, answers, seed=2 * number + 1, events=300)
            read_everything(settings)
            by_hand = on.run(*execute(settings), crash_at=f"{by_hand_at}:pause")
            on.start(crash_at=f"{worker_at}:pause")
            wait_for(lambda by_hand=by_hand: stopped(by_hand.pid))
            wait_for(lambda: any(stopped(pid) for pid in on.workers()))
            send(settings, answers, seed=2 * number + 2, events=300)
            stream = on.run(sys.executable, "-m", *PLAIN_STREAM, crash_at=f"{stream_at}:pause")
            wait_for(lambda stream=stream: stopped(stream.pid))
            assert list(on.in_progress().values()).count("STARTED") == 2
            killed += on.kill()
            seconds.append(come_back(on, settings, answers))
        if proving:
            # Taken off the queue and not started yet: nothing but the time that passes tells that it never will.
            send(settings, answers, seed=5, events=300)
            read_everything(settings)
            on.start()
            wait_for(lambda: "STARTING" in on.runs().values())
            killed += on.kill()
            send(settings, answers, seed=6, events=300)
            starting = come_back(on, settings, answers)
            assert max(*seconds, starting) < 120
            record_property("until a run killed while it was starting had ended, s", round(starting, 1))
    record_property("times everything was killed", len(seconds) + proving)
    record_property("processes killed", killed)
    record_property("hours published", published_hours(settings))
    record_property("until no run hung, the longest, s", round(max(seconds), 1))


def come_back(on: Dagster, settings: Settings, answers: Path) -> float:
    """Start everything again, until every hour is published; the seconds until no run of before was in progress."""
    # Not those that wait in the queue: they have a future.
    before = {run for run, status in on.in_progress().items() if status != "QUEUED"}
    assert before
    on.let_time_pass(INTERVAL)
    began = time.monotonic()
    on.start()
    read_everything(settings)
    wait_for(lambda: not before & set(on.in_progress()), 150)
    seconds = time.monotonic() - began
    wait_for(lambda: everything_is_published(settings), 150)
    wait_for(lambda: not on.in_progress())
    assert_exact(settings, answers, published=True)
    runs = on.runs()
    assert {runs[run] for run in before} == {"FAILURE"}
    on.kill()
    on.let_time_pass(INTERVAL)
    return seconds


def execute(settings: Settings) -> list[str]:
    """`dagster job execute` of the oldest hour that has something to publish: a run without a launcher."""
    with connect(settings.postgres_url or "") as connection:
        hour = hours_to_publish(connection, limit=1)[0].hour
    tags = f'{{"dagster/partition": "{hour_key(hour)}"}}'
    return [*EXECUTE, tags]


def stopped(pid: int) -> bool:
    """Whether a process stands at its commit point."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False
