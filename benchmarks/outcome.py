"""The outcome of a case: tables, the design's claims, and plots. Stored as JSON until the page is written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Run, Spread


@dataclass(frozen=True)
class Measured:
    """One contender in one table.

    Attributes:
        values: in the table's unit, one per round.
        peak_bytes: the largest memory of its rounds; None if it was not measured.
        figures: what it printed in its last round.
    """

    contender: str
    values: Sequence[float]
    peak_bytes: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def spread(self) -> Spread:
        return Spread.of(self.values)


@dataclass(frozen=True)
class Table:
    """Contenders doing the same work; the first one is ours."""

    title: str
    unit: str
    measured: Sequence[Measured]


@dataclass(frozen=True)
class Claim:
    """What the design asks for, what was measured, and whether that is enough."""

    asked: str
    found: str
    reached: bool


@dataclass(frozen=True)
class Plot:
    """Lines through points, both axes logarithmic if `logarithmic`."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    logarithmic: bool = False


@dataclass(frozen=True)
class Outcome:
    """Everything that a case measured. `notes` are whole sentences."""

    tables: Sequence[Table]
    claims: Sequence[Claim] = ()
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = ()


def of_runs(runs: Mapping[str, Sequence[Run]]) -> list[Measured]:
    """Return seconds and memory of the whole processes."""
    return [
        Measured(
            name, [run.seconds for run in done], max(run.peak_bytes for run in done), dict(done[-1].figures)
        )
        for name, done in runs.items()
    ]


def ratio(slower: Measured, faster: Measured) -> float:
    """Return how many times longer the first one takes, by medians."""
    return slower.spread.median / faster.spread.median


def write(path: Path, outcome: Outcome, about: Mapping[str, str]) -> None:
    """Write an outcome with where and when it was measured."""
    path.write_text(
        json.dumps({"about": dict(about), **asdict(outcome)}, indent=1, ensure_ascii=False), encoding="utf-8"
    )


def read(path: Path) -> tuple[Outcome, dict[str, str]]:
    """Read what `write` wrote."""
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    tables = [
        Table(table["title"], table["unit"], [Measured(**row) for row in table["measured"]])
        for table in kept["tables"]
    ]
    claims = [Claim(**claim) for claim in kept["claims"]]
    plots = [Plot(**plot) for plot in kept["plots"]]
    return Outcome(tables, claims, plots, kept["notes"]), kept["about"]
