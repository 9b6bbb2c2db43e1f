"""Durations of the test files, as last measured: the order in which workers take them, longest first.

`durations.txt` is written by `make durations`, from the JUnit reports of a run.
"""

import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

FILE = Path(__file__).with_name("durations.txt")
LONG_SECONDS = 5.0
"""Shorter files keep the random order of pytest-randomly: at the end they fill the gaps."""
SHOWN_SECONDS = 2.0
"""Shorter tests are counted with their file only."""

_Case = tuple[str, str]


def long_files() -> dict[str, float]:
    """Seconds of each long file, by its path below this folder."""
    lines = [line.split(maxsplit=1) for line in FILE.read_text(encoding="utf-8").splitlines()]
    seconds = {name: float(number) for number, name in lines if "::" not in name}
    return {name: number for name, number in seconds.items() if number >= LONG_SECONDS}


def measured(*reports: Path) -> str:
    """The text of `durations.txt`: each file with its seconds, and below it its longest tests."""
    files: defaultdict[str, float] = defaultdict(float)
    tests: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for case in (case for report in reports for case in ET.parse(report).getroot().iter("testcase")):
        file = case.attrib["classname"].split(".", 1)[1].replace(".", "/") + ".py"
        seconds = float(case.attrib["time"])
        files[file] += seconds
        if seconds >= SHOWN_SECONDS:
            tests[file].append((seconds, case.attrib["name"].encode("unicode_escape").decode()))
    lines = []
    for file in sorted(files, key=lambda file: (-files[file], file)):
        lines.append(f"{files[file]:7.1f} {file}")
        lines += [f"{seconds:7.1f}   ::{name}" for seconds, name in sorted(tests[file], reverse=True)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(measured(*map(Path, sys.argv[1:])), encoding="utf-8")
