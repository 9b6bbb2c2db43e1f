"""The result of a part, read from the report that pytest wrote (JUnit XML)."""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class Shown:
    """One test: which row it is for, its claim, how it ended, and the figures that it recorded."""

    row: int
    claim: str
    passed: bool
    seconds: float
    figures: dict[str, str]


@dataclass(frozen=True)
class Part:
    """One part's run; without tests if it was not run. `begun` is aware, `commit` empty if it was not run."""

    tests: list[Shown]
    begun: datetime | None
    commit: str

    @property
    def passed(self) -> bool:
        """Whether there were tests and all of them passed."""
        return bool(self.tests) and all(test.passed for test in self.tests)


def read(report: Path) -> Part:
    """The result in a report; one without tests if there is no such report."""
    if not report.exists():
        return Part([], None, "")
    root = ET.parse(report).getroot()
    suite = root if root.tag == "testsuite" else root[0]
    tests = [_shown(case) for case in suite.iter("testcase")]
    return Part(tests, datetime.fromisoformat(suite.attrib["timestamp"]), root.attrib.get("commit", ""))


def _shown(case: ET.Element) -> Shown:
    name = case.attrib["name"]
    found = re.fullmatch(r"test_row_(\d+)_(.*)", name, re.DOTALL)
    if found is None:
        raise ValueError(f"expected a test of a row, found {name}")
    figures: dict[str, str] = {}
    for figure in case.iter("property"):
        figures[figure.attrib["name"]] = figure.attrib["value"]
    passed = not any(case.find(fault) is not None for fault in ("failure", "error", "skipped"))
    return Shown(
        int(found[1]), found[2].replace("_", " "), passed, float(case.attrib.get("time", 0)), figures
    )
