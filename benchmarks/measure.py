"""Running a program once, and several programs in turns: wall time, peak memory, and the figures they print.

What is run is the cases' matter, and what it means, the page's.
"""

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
"""How often memory is looked at: a peak shorter than this may be missed."""

GROWN = 1.03
"""How far resident memory grows between two looks at what of it is shared: a peak may be found too low by this.

Such a look takes 40 ms for 3 GiB and holds up the process meanwhile: ten a second cost a stream a fifth of its speed.
"""

LONGEST_RUN = 1800.0
"""Seconds after which a run is ended: the slowest contender takes a third of it."""


class ContenderFailed(Exception):
    """A contender's process ended with an error; the message has the end of what it said."""


@dataclass(frozen=True)
class Run:
    """One whole process.

    Attributes:
        seconds: from its start to its end.
        peak_bytes: largest sum over the process and its children of the memory that is theirs, shared pages shared out
            (PSS).
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
        said = (output + errors).strip()[-2_000:]
        raise ContenderFailed(f"{' '.join(command)} ended with {process.returncode}: {said}")
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
                self._look([root, *root.children(recursive=True)])

    def _look(self, processes: list[psutil.Process]) -> None:
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
    # A process that ended between the listing and the look has no memory.
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
    """Run the contenders one after the other, round by round, so that whatever the machine does hits all of them.

    The first round fills caches and does not count, unless `warm_up` is False.
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
    """The middle of some measurements, and how far they lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))
