"""`docs/proofs.md`: what was seen, written from the reports alone."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version

import psutil

from antenna_assets_tests.prove.results import Part, Shown
from antenna_assets_tests.prove.rows import PARTS, ROWS

HEAD = """# Proofs

Written by `make prove`; every figure was recorded by the test beside it. Each row is a claim about what the system survives, and
the tests that show it carry the row's number in their names. `make test` runs the short form of the same tests.

`make prove` runs what was not shown of this code yet, in parts of at most half an hour; `make prove ROWS=7` runs a row.

"""

BOUNDS = """
## What is not claimed

- Files and directories are synced before the ledger's COMMIT, and so is each Delta commit before it is recorded. No test cuts the power: the
  kills end processes, not the machine.
- Times are of one run on a shared machine; counts of wrong, lost or doubled rows are not.
"""


def page(parts: Iterable[Part]) -> str:
    """The page for the results of these parts, in the order of the rows."""
    tests: dict[int, list[Shown]] = {row: [] for row in ROWS}
    seen: dict[int, Part] = {}
    for part in parts:
        for test in part.tests:
            tests[test.row].append(test)
            seen[test.row] = part
    sections = [_section(row, tests[row], seen.get(row)) for row in ROWS]
    return HEAD + _machine() + "\n" + _summary(tests) + "\n" + "\n".join(sections) + BOUNDS


def _machine() -> str:
    names = ("dagster", "pyspark", "duckdb", "deltalake", "confluent-kafka", "hypothesis")
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"Machine: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}; {versions}.\n"


def _summary(tests: dict[int, list[Shown]]) -> str:
    shown = sum(bool(of) and all(test.passed for test in of) for of in tests.values())
    minutes = sum(test.seconds for of in tests.values() for test in of) / 60
    return f"{shown} of {len(tests)} rows shown, by {sum(map(len, tests.values()))} tests in {minutes:.0f} minutes.\n"


def _section(row: int, tests: list[Shown], part: Part | None) -> str:
    lines = [f"## Row {row}", "", ROWS[row], ""]
    if part is None or part.begun is None:
        return "\n".join([*lines, "Not run yet.", ""])
    name = next(name for name, rows in PARTS.items() if row in rows)
    lines.append(
        f"Part `{name}`, begun {part.begun:%Y-%m-%d %H:%M} at commit {part.commit[:10]}; again: `make prove ROWS={row}`."
    )
    lines += ["", "| shown | by | figures | s |", "|---|---|---|--:|"]
    for test in tests:
        figures = "; ".join(f"{name}: {_number(value)}" for name, value in test.figures.items())
        mark = "yes" if test.passed else "**NO**"
        lines.append(f"| {mark} | {_cell(test.claim)} | {_cell(figures)} | {test.seconds:.0f} |")
    return "\n".join([*lines, ""])


def _number(text: str) -> str:
    try:
        return f"{int(text):,}"
    except ValueError:
        return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
