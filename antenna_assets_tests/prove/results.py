"""What was shown of each row, read from the reports that pytest wrote (JUnit XML)."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from antenna_assets.storage.atomic_files import READABLE, replace_file

FAULTS = ("failure", "error", "skipped")


@dataclass(frozen=True, order=True)
class RowTest:
    """A test of a row, as pytest names it in its reports."""

    file: str
    name: str

    @property
    def row(self) -> int:
        """The row that it is for."""
        return int(self._parts()[1])

    @property
    def claim(self) -> str:
        """What it shows, in words."""
        return self._parts()[2].replace("_", " ")

    def _parts(self) -> re.Match[str]:
        found = re.fullmatch(r"test_row_(\d+)_(.*)", self.name, re.DOTALL)
        if found is None:
            raise ValueError(f"expected a test of a row, found {self.name}")
        return found

    @classmethod
    def of_node(cls, node: str) -> "RowTest":
        """The test that has this address in pytest."""
        path, _, name = node.partition("::")
        return cls(path.removesuffix(".py").replace("/", "."), name)


@dataclass(frozen=True)
class Shown:
    """The newest run of a test: how it ended, the figures that it recorded, when its part began (aware), and of which commit."""

    test: RowTest
    passed: bool
    seconds: float
    figures: dict[str, str]
    begun: datetime
    commit: str


@dataclass(frozen=True)
class Row:
    """What was run of a row, and how many of its tests were not."""

    tests: list[Shown]
    missing: int

    @property
    def passed(self) -> bool:
        """Whether all of its tests were run and passed."""
        return not self.missing and all(test.passed for test in self.tests)


def rows(shown: Mapping[RowTest, Shown], tests: Iterable[RowTest]) -> dict[int, Row]:
    """The rows of which something was run; `tests` are all there are."""
    found: dict[int, Row] = {}
    for row in sorted({test.row for test in tests}):
        of_row = [test for test in tests if test.row == row]
        run = [shown[test] for test in of_row if test in shown]
        if run:
            found[row] = Row(run, len(of_row) - len(run))
    return found


def keep(report: Path, kept: Path, commit: str) -> None:
    """Keep of a report what `read` reads of it, and whom it is of: no host's name, and no failure's text, which has paths."""
    root = ET.parse(report).getroot()
    root.set("commit", commit)
    suite = root[0]
    suite.attrib.pop("hostname", None)
    for case in suite.findall("testcase"):
        if "name" not in case.attrib:
            # It was interrupted.
            suite.remove(case)
            continue
        for part in list(case):
            if part.tag in FAULTS:
                part.clear()
            elif part.tag != "properties":
                case.remove(part)
    # ASCII, and whole or absent: another `make prove` may read the folder at this moment.
    replace_file(kept, ET.tostring(root).decode("ascii") + "\n", READABLE)


def read(*folders: Path) -> dict[RowTest, Shown]:
    """The newest run of each test in folders of reports."""
    found: dict[RowTest, Shown] = {}
    for report in (report for folder in folders for report in folder.glob("*.xml")):
        root = ET.parse(report).getroot()
        begun = datetime.fromisoformat(root[0].attrib["timestamp"])
        for case in root[0].iter("testcase"):
            shown = _shown(case, begun, root.attrib["commit"])
            if shown.test not in found or found[shown.test].begun < begun:
                found[shown.test] = shown
    return found


def _shown(case: ET.Element, begun: datetime, commit: str) -> Shown:
    test = RowTest(case.attrib["classname"], case.attrib["name"])
    figures = {figure.attrib["name"]: figure.attrib["value"] for figure in case.iter("property")}
    passed = not any(case.find(fault) is not None for fault in FAULTS)
    return Shown(test, passed, float(case.attrib.get("time", 0)), figures, begun, commit)
