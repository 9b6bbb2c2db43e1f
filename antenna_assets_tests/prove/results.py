"""What was shown of each row, read from the reports that pytest wrote (JUnit XML)."""

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
class Row:
    """The newest run of a row's tests: when it began (aware), and of which commit."""

    tests: list[Shown]
    begun: datetime
    commit: str

    @property
    def passed(self) -> bool:
        """Whether all of its tests passed."""
        return all(test.passed for test in self.tests)


def read(reports: Path) -> dict[int, Row]:
    """The newest run of each row in a folder of reports."""
    rows: dict[int, Row] = {}
    for report in reports.glob("*.xml"):
        root = ET.parse(report).getroot()
        suite = root[0]
        begun = datetime.fromisoformat(suite.attrib["timestamp"])
        by_row: dict[int, list[Shown]] = {}
        for case in suite.iter("testcase"):
            test = _shown(case)
            by_row.setdefault(test.row, []).append(test)
        for row, tests in by_row.items():
            if row not in rows or rows[row].begun < begun:
                rows[row] = Row(tests, begun, root.attrib["commit"])
    return rows


def _shown(case: ET.Element) -> Shown:
    name = case.attrib["name"]
    found = re.fullmatch(r"test_row_(\d+)_(.*)", name, re.DOTALL)
    if found is None:
        raise ValueError(f"expected a test of a row, found {name}")
    figures = {figure.attrib["name"]: figure.attrib["value"] for figure in case.iter("property")}
    passed = not any(case.find(fault) is not None for fault in ("failure", "error", "skipped"))
    return Shown(
        int(found[1]), found[2].replace("_", " "), passed, float(case.attrib.get("time", 0)), figures
    )
