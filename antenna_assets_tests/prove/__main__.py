"""The command behind `make prove`: run what was not shown of this code yet, then write `docs/proofs.md`."""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from antenna_assets_tests.prove.page import page
from antenna_assets_tests.prove.results import read
from antenna_assets_tests.prove.rows import PARTS, ROWS

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "proofs.md"
CODE = ("antenna_assets", "sql", "docker", "requirements.lock", "pyproject.toml")
"""What the proofs are about: while none of it changes, a row that was shown is not run again."""

LONGEST_PART_SECONDS = 1_800


def main() -> int:
    """Run the rows that were not shown yet, part by part; the exit code is 0 if every row that was asked for is shown."""
    arguments = _arguments()
    reports = PROJECT / ".prove" / _code()
    reports.mkdir(parents=True, exist_ok=True)
    for name, rows in PARTS.items():
        shown = {row for row, run in read(reports).items() if run.passed and not arguments.again}
        wanted = [row for row in rows if row in arguments.rows]
        for row in wanted:
            if row in shown:
                _say(f"row {row}: was shown of this code already; --again runs it again")
        if missing := [row for row in wanted if row not in shown]:
            _run(name, missing, reports)
    found = read(reports)
    PAGE.write_text(page(found), encoding="utf-8")
    _say(f"written: {PAGE.relative_to(PROJECT)}")
    return int(not all(row in found and found[row].passed for row in arguments.rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make prove",
        description="Run the long form of the proofs in parts of at most half an hour. A row that was shown of this very code is not run again, so a run that was stopped goes on.",
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


def _run(name: str, rows: list[int], reports: Path) -> None:
    """Run the tests of these rows, within the time of a part, and keep the report."""
    began = time.monotonic()
    _say(f"{name}: rows {', '.join(map(str, rows))}")
    tests = " or ".join(f"test_row_{row}_" for row in rows)
    unfinished = reports / f"{name}-{os.getpid()}.unfinished"
    command = [sys.executable, "-m", "pytest", "--prove", "-q", "-k", tests, f"--junitxml={unfinished}"]
    process = subprocess.Popen(command, cwd=PROJECT)
    try:
        code = process.wait(LONGEST_PART_SECONDS)
    except subprocess.TimeoutExpired:
        _say(f"{name}: expected an end within {LONGEST_PART_SECONDS // 60} minutes, stopping it")
        # As Ctrl-C: pytest stops the services that it started.
        process.send_signal(signal.SIGINT)
        code = process.wait()
    if unfinished.exists():
        commit = f'commit="{_git("rev-parse", "HEAD")}"'
        text = unfinished.read_text(encoding="utf-8").replace("<testsuites ", f"<testsuites {commit} ", 1)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(reports / f"{name}-{time.time_ns()}.xml")
    _say(f"{name}: {'shown' if code == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s")


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
