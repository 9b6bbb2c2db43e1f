"""Publishing by several processes at once: workers that can be paused, woken and killed, and what they say in a file each.

They are forked from the server of `publish.py`. What must hold while they work is for the tests.
"""

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.defs.requested_runs import RANGE_END_TAG, RANGE_START_TAG
from antenna_assets.settings import Settings, load_settings
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.publish import _PROCESSES, publish_hour

# Once for each asset that passes the point; a point that is not named here is passed once.
_PASSAGES = {"publish.lake.": 2, "publish.table.": 4, "publish.hours_done": 6}


class Worker:
    """A process that calls a function on the settings; a context manager that leaves no process behind.

    Args:
        said: the file that takes its output, Dagster's log included.
        crash_at: the fault that it is to meet, if any.
    """

    def __init__(
        self,
        settings: Settings,
        said: Path,
        what: Callable[..., None],
        *arguments: Any,
        crash_at: str | None = None,
    ) -> None:
        environment = settings.exports()
        if crash_at is not None:
            environment["ANTENNA_CRASH_AT"] = crash_at
        self.said = said
        self._process = _PROCESSES.Process(target=_call, args=(environment, str(said), what, arguments))

    def __enter__(self) -> "Worker":
        self.said.touch()
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.close()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet; a paused worker has not."""
        return self._process.exitcode is None

    def wait_until_paused(self) -> None:
        """Wait until it has stopped itself."""
        assert self.pauses(), f"expected a paused worker, found one that ended: {self.said.read_text()}"

    def pauses(self) -> bool:
        """Wait until it has stopped itself or ended; whether it is paused."""
        end = time.monotonic() + 60
        while not self._paused():
            if not self.running:
                return False
            assert time.monotonic() < end, f"expected a paused worker, found it busy: {self.said.read_text()}"
            time.sleep(0.01)
        return True

    def wake(self) -> None:
        """Let a paused worker go on."""
        os.kill(self._process.pid or 0, signal.SIGCONT)

    def kill(self) -> None:
        """End it as the power switch does, paused or not."""
        if self.running:
            self._process.kill()
            self._process.join(20)

    def must_succeed(self) -> None:
        """Wait until it has ended: well, and without an error that a user would see."""
        self._process.join(300)
        said = self.said.read_text()
        assert self._process.exitcode == 0, said
        assert complaints(said) == []

    def _paused(self) -> bool:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED
        return False


def passages(point: str) -> int:
    """How often a run of one hour passes a point."""
    return next((count for prefix, count in _PASSAGES.items() if point.startswith(prefix)), 1)


def complaints(said: str) -> list[str]:
    """What a user would take for an error."""
    signs = (" ERROR ", " CRITICAL ", "Traceback", "deadlock", "RUN_FAILURE")
    return [line for line in said.splitlines() if any(sign in line for sign in signs)]


def runs_of(worker: Worker) -> int:
    """The successful runs in a worker's log."""
    return worker.said.read_text().count("RUN_SUCCESS")


def read_and_publish(key: str) -> None:
    """Land what Kafka holds, then publish an hour of it."""
    read_everything(load_settings())
    publish_hour(key)


def publish_until(stop: Event, key: str) -> None:
    """Publish an hour again and again."""
    while not stop.is_set():
        publish_hour(key)


def publish_in_step(gate: Barrier, keys: list[str]) -> None:
    """Publish hour by hour, each at the same time as the other workers at the gate; every other one a little after them.

    So they meet in the same asset, and in different ones.
    """
    for number, key in enumerate(keys):
        gate.wait(60)
        time.sleep(random.uniform(0, 0.5) if number % 2 else 0)
        publish_hour(key)


def backfill(first: str, last: str) -> None:
    """Run a range of hours; a run that fails raises."""
    job = build_definitions().resolve_job_def("hourly_usage")
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance, tags={RANGE_START_TAG: first, RANGE_END_TAG: last})


def backfill_until(stop: Event, first: str, last: str) -> None:
    """Run a range of hours again and again."""
    while not stop.is_set():
        backfill(first, last)


def new_stop() -> Event:
    """What tells workers to end after the run they are in."""
    return _PROCESSES.Event()


def new_gate(workers: int) -> Barrier:
    """Where so many workers wait for each other."""
    return _PROCESSES.Barrier(workers)


def waits_for_a_lock(settings: Settings) -> bool:
    """Whether a connection to the database waits for another one's lock."""
    with connect(settings.postgres_url or "") as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        ).fetchone()
    return row != (0,)


def deadlocks(settings: Settings) -> int:
    """The deadlocks that PostgreSQL has counted in the database."""
    with connect(settings.postgres_url or "") as connection:
        ((count,),) = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchall()
    return count


def _call(environment: dict[str, str], said: str, what: Callable[..., None], arguments: tuple) -> None:
    with Path(said).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # What a killed worker leaves there goes with the test's folder.
    tempfile.tempdir = str(Path(said).parent)
    os.environ.update(environment)
    what(*arguments)
