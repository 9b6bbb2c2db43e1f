"""Failpoints: named places where a fault can be injected, so that a crash can be reproduced.

With `ANTENNA_CRASH_AT=<point>` the process kills itself (SIGKILL) at the point, with `<point>:N` when it
reaches the point for the N-th time. `:java` kills its Java process instead, `:both` kills both, and `:pause`
stops the process (SIGSTOP) until a SIGCONT.
"""

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from antenna_assets.settings import SettingsError, crash_at

if TYPE_CHECKING:
    from pyspark import SparkContext

POINTS = frozenset(
    {
        # `antenna up`
        "up.postgres_started",
        "up.kafka_started",
        "up.services_started",
        "up.migration.last_statement",
        "up.before_dagster_yaml",
        # Binding a lake to a ledger.
        "claim.lake_written",
        "claim.recorded",
        "adopt.lake_written",
        "adopt.recorded",
        # The stream: landing files, then the transaction.
        # Of the Spark reader only.
        "stream.before_sweep",
        "stream.land.before_write",
        "stream.jvm.task",
        # Of the embedded reader only.
        "stream.read",
        "stream.land.judged",
        "stream.land.accepted",
        "stream.land.written",
        # Of every reader.
        "stream.land.before_sync",
        "stream.land.after_sync",
        "stream.commit.before",
        "stream.commit.offsets",
        "stream.commit.files",
        "stream.commit.live",
        "stream.commit.last_statement",
        "stream.commit.committed",
        "stream.heartbeat.last_statement",
        "stream.heartbeat.committed",
        # The stream's merging of small files.
        "stream.merge.before_write",
        "stream.merge.after_sync",
        "stream.merge.last_statement",
        "stream.merge.committed",
        # The sensor, and the publication of an hour.
        "sensor.before_query",
        "sensor.before_requests",
        "publish.seal.last_statement",
        "publish.sealed",
        "publish.lake.created",
        "publish.lake.files_written",
        "publish.lake.committed",
        "publish.table.computed",
        "publish.table.fenced",
        "publish.table.deleted",
        "publish.table.copied",
        "publish.table.committed",
        "publish.certified",
        "publish.hours_done",
        # The watch over alerts.
        "alerts.followed",
        "alerts.written",
        "alerts.committed",
        # The delivery of notices.
        "alerts.taken",
        "alerts.sent",
        # The publication of a day or month.
        "period.computed",
        "period.fenced",
        "period.copied",
        "period.certified",
        "period.committed",
        # Operations.
        "forget.fenced",
        "forget.replaced",
        "forget.hour_in_lake",
        "forget.swapped",
        "rebuild.set_aside",
        "rebuild.counted_on",
        "old_previews.events_cleaned",
    }
)
"""Every failpoint. A test holds this equal to the calls of `commit_point` and `task_point` in the code."""

Fault = Literal["python", "java", "both", "pause"]
_FAULTS: tuple[Fault, ...] = ("java", "both", "pause")


@dataclass(frozen=True)
class Crash:
    """A fault to inject at the `passage`-th time that a point is reached, counted from 1."""

    point: str
    passage: int = 1
    fault: Fault = "python"


def commit_point(name: str) -> None:
    """Inject the fault here, if the environment names this point."""
    crash = _reached(name)
    if crash is None:
        return
    if crash.fault == "pause":
        # To this thread: it stops here. What is sent to the process waits until some other thread gets the
        # processor, and this one would go on until then.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return
    if crash.fault != "python":
        _kill_java()
    if crash.fault != "java":
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def task_point(name: str, spark: "SparkContext") -> Iterator[None]:
    """Kill Spark's Java process as soon as a task runs within the block, if the environment names this point.

    Python continues, unless the fault is `both`.
    """
    crash = _reached(name)
    if crash is None:
        yield
        return
    tracker = spark.statusTracker()
    ended = threading.Event()

    def kill_in_a_task() -> None:
        while not ended.is_set():
            for stage in tracker.getActiveStageIds():
                found = tracker.getStageInfo(stage)
                if found is not None and found.numActiveTasks:
                    _kill_java()
                    if crash.fault == "both":
                        os.kill(os.getpid(), signal.SIGKILL)
                    return
            ended.wait(0.002)

    killer = threading.Thread(target=kill_in_a_task, name=name, daemon=True)
    killer.start()
    try:
        yield
    finally:
        ended.set()
        killer.join()


def parse(text: str) -> Crash:
    """Parse `ANTENNA_CRASH_AT`.

    Raises:
        SettingsError: there is no such point, the passage is no number from 1 on, or there is no such fault.
    """
    name, *rest = text.split(":")
    if name not in POINTS:
        raise SettingsError(
            f"ANTENNA_CRASH_AT: {name} is no commit point; known are {', '.join(sorted(POINTS))}"
        )
    fault: Fault = "python"
    for known_fault in _FAULTS:
        if rest and rest[-1] == known_fault:
            rest.pop()
            fault = known_fault
    passage = rest.pop() if rest else "1"
    if rest or not (passage.isdecimal() and int(passage)):
        raise SettingsError(
            f"ANTENNA_CRASH_AT: expected a passage such as {name}:2, and perhaps one of {', '.join(_FAULTS)} "
            f"such as {name}:2:java, found {text}"
        )
    return Crash(name, int(passage), fault)


def require_known() -> None:
    """Refuse a wrong `ANTENNA_CRASH_AT` at the start of a program, before anything is done.

    Raises:
        SettingsError: as `parse`.
    """
    # Not through the cache: a process that is forked later has an environment of its own.
    text = crash_at()
    if text is not None:
        parse(text)


def _reached(name: str) -> Crash | None:
    armed = _armed()
    if armed is None or armed[0].point != name or next(armed[1]) != armed[0].passage:
        return None
    return armed[0]


@cache
def _armed() -> "tuple[Crash, itertools.count[int]] | None":
    """The crash and a counter of passages. Read once: an unset variable costs 0.1 microseconds a passage."""
    text = crash_at()
    return None if text is None else (parse(text), itertools.count(1))


def _kill_java() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        if child.name() == "java":
            child.kill()
