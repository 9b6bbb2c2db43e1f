"""The command behind `make prove`: run what was not shown of this code yet, then write `docs/proofs.md`."""

import argparse
import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from antenna_assets_tests.prove.page import page
from antenna_assets_tests.prove.results import RowTest, keep, read, rows
from antenna_assets_tests.prove.rows import MEASURING, PARTS, ROWS

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "proofs.md"
REPORTS = PROJECT / "docs" / "proofs"
"""What the page is written from, by the code that was proved: kept, so that another machine goes on where one stopped."""

CODE = ("antenna_assets", "sql", "docker", "requirements", "pyproject.toml")
"""What the proofs are about: while none of it changes, a row that was shown is not run again."""

LONGEST_PART_SECONDS = 1_800
LAST_BEGIN_SECONDS = 1_000
"""After this a part begins no test any more: the longest one takes eleven minutes."""

WORKERS = 2
"""Tests at a time, each with services of its own: they wait for most of their time."""


def main() -> int:
    """Run the tests that were not shown yet, part by part; the exit code is 0 if every row that was asked for is shown."""
    arguments = _arguments()
    reports = REPORTS / _code()
    reports.mkdir(parents=True, exist_ok=True)
    outdated = sorted(set(REPORTS.iterdir()) - {reports})
    tests = _tests()
    for name, part in PARTS.items():
        wanted = {test: node for test, node in tests.items() if test.row in set(part) & arguments.rows}
        before = read(reports)
        shown = {test for test in wanted if test in before and before[test].passed and not arguments.again}
        if shown:
            _say(f"{name}: {len(shown)} of {len(wanted)} tests were shown of this code already")
        left = {test: node for test, node in wanted.items() if test not in shown}
        while left:
            began = datetime.now(UTC)
            _run(name, list(left.values()), reports)
            ended = {test for test, run in read(reports).items() if run.begun >= began}
            if not ended & set(left):
                break
            left = {test: node for test, node in left.items() if test not in ended}
    current = read(reports)
    for folder in outdated:
        if not set(read(folder)) & set(tests) - set(current):
            shutil.rmtree(folder)
    earlier = read(*(folder for folder in outdated if folder.exists()))
    found = rows(current, tests)
    PAGE.write_text(page(found, rows(earlier, tests)), encoding="utf-8")
    _say(f"written: {PAGE.relative_to(PROJECT)}")
    return int(not all(row in found and found[row].passed for row in arguments.rows))


def _tests() -> dict[RowTest, str]:
    """Every test of a row in the long form, with its address for pytest."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--prove",
        "--collect-only",
        "-q",
        "-k",
        "test_row_",
        "-p",
        "no:randomly",
    ]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"make prove: pytest cannot collect the tests:\n{done.stdout}{done.stderr}")
    nodes = [line for line in done.stdout.splitlines() if "::test_row_" in line]
    return {RowTest.of_node(node): node for node in nodes}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make prove",
        description="Run the long form of the proofs in parts of at most half an hour. A test that was shown of this very code is not run again, so a run that was stopped goes on.",
    )
    parser.add_argument(
        "--rows",
        type=lambda text: {int(row) for row in text.split(",")},
        default=set(ROWS),
        metavar="1,14",
        help="only these rows",
    )
    parser.add_argument("--again", action="store_true", help="also what was shown of this code already")
    arguments = parser.parse_args()
    if unknown := arguments.rows - set(ROWS):
        parser.error(f"there is no row {', '.join(map(str, sorted(unknown)))}; known are 1 to {max(ROWS)}")
    return arguments


def _run(name: str, nodes: list[str], reports: Path) -> None:
    """Run these tests, as many as the time of a part allows, and keep the report."""
    began = time.monotonic()
    _say(f"{name}: {len(nodes)} tests")
    with tempfile.TemporaryDirectory(prefix="antenna-prove-") as folder:
        report = Path(folder) / "report.xml"
        options = ["--prove", f"--last-begin={LAST_BEGIN_SECONDS}", "-q", f"--junitxml={report}"]
        if name not in MEASURING:
            options += ["-n", str(WORKERS), "--dist", "worksteal"]
        process = subprocess.Popen([sys.executable, "-m", "pytest", *options, *nodes], cwd=PROJECT)
        try:
            code = process.wait(LONGEST_PART_SECONDS)
        except subprocess.TimeoutExpired:
            _say(f"{name}: expected an end within {LONGEST_PART_SECONDS // 60} minutes, stopping it")
            # As Ctrl-C: pytest and its workers stop the services that they started.
            pytest = psutil.Process(process.pid)
            for one in [pytest, *pytest.children()]:
                one.send_signal(signal.SIGINT)
            code = process.wait()
        if report.exists():
            kept = reports / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}.xml"
            keep(report, kept, _git("rev-parse", "HEAD"))
    ended = {0: "passed", 2: "stopped before its end"}.get(code, "FAILED")
    _say(f"{name}: {ended} in {time.monotonic() - began:.0f} s")


def _code() -> str:
    """A name for the code that is proved.

    Exits with an error if a file of it is not committed: a proof is of a commit.
    """
    changed = _git("status", "--porcelain", "--", *CODE)
    if changed:
        sys.exit(f"make prove: expected committed code, since a proof names its commit; found\n{changed}")
    return hashlib.sha256(_git("ls-files", "-s", "--", *CODE).encode()).hexdigest()[:12]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _say(line: str) -> None:
    sys.stderr.write(f"prove: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
