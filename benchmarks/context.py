"""The context of a case: where to write, how much to do, and the programs of the peers' environments."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.month import Month

PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Context:
    """One run of the benchmarks.

    Attributes:
        folder: an empty folder for this case, removed after it.
        short: do a thousandth of the work, once, to check that everything runs; its figures mean nothing.
        rounds: how often each contender is measured, after a warm-up.
        say: prints one line of progress.
        environment: returns the environment of `world.world`; the first call starts its services, for all
            cases.
        month: returns a month that has landed; the first call lands it, for all cases.
    """

    folder: Path
    short: bool
    rounds: int
    say: Callable[[str], None]
    environment: Callable[[], dict[str, str]]
    month: Callable[[], "Month"]

    def events(self, full: int) -> int:
        """Return how many events to use where the full form uses `full`."""
        return max(1_000, full // 1_000) if self.short else full

    def program(self, module: str, *arguments: str, environment: str = ".venv") -> list[str]:
        """Return the command of a contender, in one of the project's virtual environments."""
        python = sys.executable if environment == ".venv" else str(PROJECT / environment / "bin" / "python")
        return [python, "-m", f"benchmarks.contenders.{module}", *arguments]
