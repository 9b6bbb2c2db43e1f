"""The command behind `make prove`: run what was not shown of this code yet, then write `docs/proofs.md`."""

import argparse
import hashlib
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
"""What the proofs are about: while none of it changes, a part that was shown is not run again."""

LONGEST_PART_SECONDS = 1_800


def main() -> int:
    """Run the parts, oldest results first kept; the exit code is 0 if every row was shown."""
    arguments = _arguments()
    results = PROJECT / ".prove" / _code()
    results.mkdir(parents=True, exist_ok=True)
    failed = False
    for name, rows in PARTS.items():
        wanted = [row for row in rows if row in arguments.rows]
        report = results / f"{name}.xml"
        if not wanted:
            continue
        if set(wanted) != set(rows):
            # A single row, for whoever works on it: it leaves the part's result as it is.
            failed |= not _run(name, wanted, results / f"{name}-{'-'.join(map(str, wanted))}.xml")
        elif report.exists() and not arguments.again and read(report).passed:
            _say(f"{name}: was shown already; --again runs it again")
        else:
            failed |= not _run(name, wanted, report)
    PAGE.write_text(page([read(results / f"{name}.xml") for name in PARTS]), encoding="utf-8")
    _say(f"written: {PAGE.relative_to(PROJECT)}")
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make prove",
        description="Run the long form of the proofs in parts of at most half an hour. A part that was shown of this very code is not run again, so a run that was stopped goes on.",
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


def _run(name: str, rows: list[int], report: Path) -> bool:
    """Run the tests of these rows; whether all passed within the time of a part."""
    began = time.monotonic()
    _say(f"{name}: rows {', '.join(map(str, rows))}")
    tests = " or ".join(f"test_row_{row}_" for row in rows)
    report.unlink(missing_ok=True)
    unfinished = report.with_suffix(".unfinished")
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
        properties = f'commit="{_git("rev-parse", "HEAD")}"'
        text = unfinished.read_text(encoding="utf-8")
        unfinished.write_text(text.replace("<testsuites ", f"<testsuites {properties} ", 1), encoding="utf-8")
        unfinished.replace(report)
    _say(f"{name}: {'shown' if code == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s")
    return code == 0


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
