"""Running programs once or in turns, with wall time, peak memory, and the figures they print."""

import json
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.1
"""Interval at which memory is sampled: a shorter peak may be missed."""

GROWN = 1.03
"""Growth of resident memory before PSS is sampled again: a peak may be measured too low by this factor.

Such a sample takes 40 ms for 3 GiB and stalls the process: ten per second cost a stream a fifth of its speed.
"""

LONGEST_RUN = 1800.0
"""Seconds after which a run is killed: the slowest contender takes a third of it."""


class ContenderFailed(Exception):
    """A contender failed; the message has the end of its output."""


@dataclass(frozen=True)
class Run:
    """One whole process.

    Attributes:
        seconds: from start to end.
        peak_bytes: largest sum of the proportional set sizes (PSS) of the process and its children.
        figures: what the process printed as JSON in its last line.
    """

    seconds: float
    peak_bytes: int
    figures: Mapping[str, float] = field(default_factory=dict)


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, folder: Path | None = None) -> Run:
    """Run a command to its end.

    Args:
        env: variables on top of this process's own.
        folder: its working directory.

    Raises:
        ContenderFailed: its exit code is not 0, or it took longer than `LONGEST_RUN`.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    memory = _Memory(process.pid)
    memory.start()
    try:
        output, errors = process.communicate(timeout=LONGEST_RUN)
    except BaseException as error:
        _end(process.pid)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ContenderFailed(f"{' '.join(command)} did not end within {LONGEST_RUN:.0f} s") from error
        raise
    finally:
        memory.stop()
    seconds = time.perf_counter() - began
    if process.returncode:
        end = (output + errors).strip()[-2_000:]
        raise ContenderFailed(f"{' '.join(command)} ended with {process.returncode}: {end}")
    return Run(seconds, memory.peak, _figures(output))


def _end(pid: int) -> None:
    """Kill a process and its children."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (*root.children(recursive=True), root):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _figures(output: str) -> dict[str, float]:
    last = next(reversed(output.strip().splitlines()), "")
    return json.loads(last) if last.startswith("{") else {}


class _Memory(threading.Thread):
    """Samples the memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self._highest = 0
        self.peak = 0

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(self._pid)
                self._sample([root, *root.children(recursive=True)])

    def _sample(self, processes: list[psutil.Process]) -> None:
        resident = sum(map(_rss, processes))
        if resident > GROWN * self._highest:
            self._highest = resident
            self.peak = max(self.peak, sum(map(_pss, processes)))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _rss(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return int(process.memory_info().rss)
    return 0


def _pss(process: psutil.Process) -> int:
    # A process that ended since it was listed has no memory.
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return int(process.memory_full_info().pss)
    return 0


def in_turns(
    contenders: Mapping[str, Callable[[], Run]],
    *,
    rounds: int,
    say: Callable[[str], None],
    warm_up: bool = True,
) -> dict[str, list[Run]]:
    """Run the contenders in turns, round by round, so that disturbances of the machine affect all of them.

    The first round fills caches and is not counted, unless `warm_up` is False.
    """
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for number in range(rounds + warm_up):
        counts = number >= warm_up
        for name, once in contenders.items():
            done = once()
            say(f"{name}: {done.seconds:.2f} s{'' if counts else ' (warm-up)'}")
            if counts:
                runs[name].append(done)
    return runs


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of some measurements."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))
