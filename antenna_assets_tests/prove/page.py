"""`docs/proofs.md`: what was seen, written from the reports alone."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version

import psutil

from antenna_assets_tests.prove.between import CELLS, FEATURES
from antenna_assets_tests.prove.results import Row, Shown
from antenna_assets_tests.prove.rows import LIVENESS, ROWS

HEAD = """# Proofs

Written by `make prove`; every figure was recorded by the test beside it. Each row is a claim about what the system survives, and
the tests that show it carry the row's number in their names. `make test` runs the short form of the same tests.

`make prove` runs the tests that were not shown of this code yet, in parts of at most half an hour; `make prove ROWS=7` runs a row.
What the tests reported is kept in `docs/proofs/`, in a folder with a name made from the code, so that another machine can go on.

"""

BOUNDS = """
## What is not claimed

- Files and directories are synced before the ledger's COMMIT, and so is each Delta commit before it is recorded. No test cuts the power: the
  kills end processes, not the machine.
- Times are of one run on a shared machine; counts of wrong, lost or doubled rows are not.
"""


def page(found: Mapping[int, Row], earlier: Mapping[int, Row]) -> str:
    """The page for what was found, liveness and safety apart and each in the order of the rows.

    Args:
        earlier: what was found of earlier code. A row has it while nothing of it was run of this code.
    """
    safety = [row for row in ROWS if row not in LIVENESS]
    parts = {
        "Liveness: what happens, and within which time": LIVENESS,
        "Safety: what never happens": safety,
    }
    text = HEAD + _machine() + "\n" + _summary(found, earlier)
    for title, of in parts.items():
        sections = [_section(row, found.get(row), earlier.get(row)) for row in of]
        text += f"\n# {title}\n\n" + "\n".join(sections)
    return text + _between() + BOUNDS


def _between() -> str:
    """The pairs of features that can meet, a line each."""
    lines = [
        "",
        "# Between the features",
        "",
        "Each pair that can meet. *Shown* names the rows whose tests try it; *argued* and *not promised* say why.",
        "",
        "| what meets | | how it is known | |",
        "|---|---|---|---|",
    ]
    for cell in CELLS:
        lines.append(f"| {FEATURES[cell.one]} | {FEATURES[cell.other]} | {cell.status} | {_cell(cell.why)} |")
    return "\n".join([*lines, ""])


def _machine() -> str:
    names = ("dagster", "pyspark", "duckdb", "deltalake", "confluent-kafka", "hypothesis")
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"Machine: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}; {versions}.\n"


def _summary(found: Mapping[int, Row], earlier: Mapping[int, Row]) -> str:
    shown = sum(run.passed for run in found.values())
    before = sum(run.passed for row, run in earlier.items() if row not in found)
    of_earlier = (
        f" {before} more were shown of earlier code, at the commits that they name." if before else ""
    )
    tests = [test for run in found.values() for test in run.tests]
    minutes = sum(test.seconds for test in tests) / 60
    return f"{shown} of {len(ROWS)} rows shown, by {len(tests)} tests in {minutes:.0f} minutes.{of_earlier}\n"


def _section(row: int, current: Row | None, earlier: Row | None) -> str:
    run = current or earlier
    lines = [f"## Row {row}", "", ROWS[row], ""]
    if run is None:
        return "\n".join([*lines, "The long form was not run to its end yet.", ""])
    newest = max(run.tests, key=lambda shown: shown.begun)
    lines.append(
        f"Begun {newest.begun:%Y-%m-%d %H:%M} UTC at commit {newest.commit[:10]}; again: `make prove ROWS={row}`."
    )
    if current is None:
        lines.append("**Shown of earlier code; not run again since.**")
    if run.missing:
        lines.append(f"**{run.missing} of its tests were not run to their end yet.**")
    lines += ["", "| shown | by | figures | s |", "|---|---|---|--:|"]
    by_claim: dict[str, list[Shown]] = {}
    for shown in run.tests:
        by_claim.setdefault(shown.test.claim.partition("[")[0], []).append(shown)
    lines += [_line(claim, cases) for claim, cases in by_claim.items()]
    return "\n".join([*lines, ""])


def _line(claim: str, cases: list[Shown]) -> str:
    """One line for the cases of a test."""
    figures: dict[str, list[str]] = {}
    for case in cases:
        for name, value in case.figures.items():
            figures.setdefault(name, []).append(value)
    told = "; ".join(f"{name}: {_together(values)}" for name, values in figures.items())
    mark = "yes" if all(case.passed for case in cases) else "**NO**"
    many = f" ({len(cases)} cases)" if len(cases) > 1 else ""
    seconds = sum(case.seconds for case in cases)
    return f"| {mark} | {_cell(claim + many)} | {_cell(told)} | {seconds:.0f} |"


def _together(values: list[str]) -> str:
    """A figure over the cases of a test: counts are added up, measures become a range, words are said once."""
    if all(value.isdecimal() for value in values):
        return f"{sum(map(int, values)):,}"
    try:
        ordered = sorted(dict.fromkeys(values), key=float)
    except ValueError:
        return "; ".join(dict.fromkeys(values))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
