"""Commit points: the named places at which a fault is injected, so that each case of a crash can be repeated.

`ANTENNA_CRASH_AT=<point>` makes the process SIGKILL itself at the point, `<point>:N` at its N-th passage. A point
exists by being named in the code; what must hold after a crash is for the tests.
"""

import ast
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from antenna_assets.settings import SettingsError, crash_at

if TYPE_CHECKING:
    from pyspark import SparkContext

_FUNCTIONS = ("commit_point", "task_point")


def commit_point(name: str) -> None:
    """Die here, as by the power switch, if the environment names this point."""
    if _reached(name):
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def task_point(name: str, spark: "SparkContext") -> Iterator[None]:
    """Kill Spark's Java process as soon as a task runs within the block, if the environment names this point."""
    if not _reached(name):
        yield
        return
    tracker, java = spark.statusTracker(), spark._gateway.proc.pid
    ended = threading.Event()

    def kill_in_a_task() -> None:
        while not ended.is_set():
            for stage in tracker.getActiveStageIds():
                found = tracker.getStageInfo(stage)
                if found is not None and found.numActiveTasks:
                    os.kill(java, signal.SIGKILL)
                    return
            ended.wait(0.002)

    killer = threading.Thread(target=kill_in_a_task, name=name, daemon=True)
    killer.start()
    try:
        yield
    finally:
        ended.set()
        killer.join()


def points() -> dict[str, Path]:
    """Every point and the module that names it, read from the package's code.

    Raises:
        ValueError: a point is not a literal, or two places have the same name.
    """
    found: dict[str, Path] = {}
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path == Path(__file__) or not any(name in text for name in _FUNCTIONS):
            continue
        for node in ast.walk(ast.parse(text)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id in _FUNCTIONS:
                name = node.args[0]
                if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
                    raise ValueError(f"{path}:{node.lineno}: expected the point's name as a literal")
                if name.value in found:
                    raise ValueError(f"{path}:{node.lineno}: {name.value} is in {found[name.value]} already")
                found[name.value] = path
    return found


def parse(text: str) -> tuple[str, int]:
    """The point's name, and at which passage the process dies.

    Raises:
        SettingsError: there is no such point, or the passage is no number from 1 on.
    """
    name, _, passage = text.partition(":")
    known = points()
    if name not in known:
        raise SettingsError(
            f"ANTENNA_CRASH_AT: {name} is no commit point; known are {', '.join(sorted(known))}"
        )
    if passage and not (passage.isdecimal() and int(passage)):
        raise SettingsError(f"ANTENNA_CRASH_AT: expected a passage such as {name}:2, found {text}")
    return name, int(passage or 1)


def _reached(name: str) -> bool:
    armed = _armed()
    return armed is not None and armed[0] == name and next(armed[1]) == armed[2]


@cache
def _armed() -> "tuple[str, itertools.count[int], int] | None":
    """The point, its passages from 1 on, and the deadly one. Read once: unset costs 0.1 microseconds a passage."""
    text = crash_at()
    if text is None:
        return None
    name, passage = parse(text)
    return name, itertools.count(1), passage
