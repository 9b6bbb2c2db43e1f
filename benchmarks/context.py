"""What a case is given: where to write, how much to do, and the programs of the peers' environments."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Context:
    """One run of the benchmarks.

    Attributes:
        folder: empty, for this case alone; removed after it.
        short: a thousandth of the work, once: it shows that everything runs, and no figure of it means anything.
        rounds: how often each contender is measured, after a warm-up.
        say: takes one line of progress.
        environment: the environment of `world.world`, whose services start at the first call and serve all cases.
    """

    folder: Path
    short: bool
    rounds: int
    say: Callable[[str], None]
    environment: Callable[[], dict[str, str]]

    def events(self, full: int) -> int:
        """How many events to use where the full form uses `full`."""
        return max(1_000, full // 1_000) if self.short else full

    def program(self, module: str, *arguments: str, environment: str = ".venv") -> list[str]:
        """The command of a contender, in one of the project's virtual environments."""
        python = sys.executable if environment == ".venv" else str(PROJECT / environment / "bin" / "python")
        return [python, "-m", f"benchmarks.contenders.{module}", *arguments]
