"""`make bench`: measure the cases one by one, draw the plots and write `docs/benchmarks.md`."""

import argparse
import importlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.context import PROJECT, Context
from benchmarks.month import Month, land_month
from benchmarks.outcome import read, write
from benchmarks.page import page
from benchmarks.world import world

CASES = (
    "hour",
    "dagster_hour",
    "users",
    "stream",
    "stream_forms",
    "live_delay",
    "allowance",
    "backfill",
    "backfill_killed",
    "outage",
    "sensor",
    "history",
    "lake_history",
    "dashboards",
)
PAGE = PROJECT / "docs" / "benchmarks.md"
RESULTS = PAGE.with_suffix("")
PACKAGES = ("dagster", "pyspark", "duckdb", "deltalake", "pyarrow")


def main() -> int:
    """Run the requested cases. Each result is written as soon as the case is done."""
    arguments = _arguments()
    results = Path(arguments.results)
    results.mkdir(parents=True, exist_ok=True)
    with ExitStack() as services:
        environment = cache(lambda: services.enter_context(world()))
        month = cache(lambda: _month(services, environment(), arguments.short))
        for name in arguments.cases:
            _measure(name, arguments, results, environment=environment, month=month)
    if not arguments.short:
        _publish(results)
    return 0


def _month(services: ExitStack, environment: dict[str, str], short: bool) -> Month:
    folder = services.enter_context(tempfile.TemporaryDirectory(prefix="antenna-bench-"))
    return land_month(environment, Path(folder), short=short, say=_say)


def _measure(
    name: str,
    arguments: argparse.Namespace,
    results: Path,
    *,
    environment: Callable[[], dict[str, str]],
    month: Callable[[], Month],
) -> None:
    case = importlib.import_module(f"benchmarks.cases.{name}")
    _say(f"{name}: {case.TITLE}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="antenna-bench-") as folder:
        rounds = 1 if arguments.short else arguments.rounds
        outcome = case.measure(Context(Path(folder), arguments.short, rounds, _say, environment, month))
    write(results / f"{name}.json", outcome, _circumstances(rounds))
    # The short form says nothing about speed.
    for claim in () if arguments.short else outcome.claims:
        _say(f"{name}: {claim.asked}: {claim.found}{'' if claim.reached else ' (not reached)'}")
    _say(f"{name}: done in {time.monotonic() - began:.0f} s")


def _publish(results: Path) -> None:
    kept = {name: read(results / f"{name}.json") for name in CASES if (results / f"{name}.json").exists()}
    titles = {name: importlib.import_module(f"benchmarks.cases.{name}").TITLE for name in kept}
    PAGE.write_text(page({name: (titles[name], *one) for name, one in kept.items()}), encoding="utf-8")
    python = PROJECT / ".venv-bench" / "bin" / "python"
    subprocess.run((python, "-m", "benchmarks.plots", results, RESULTS), cwd=PROJECT, check=True)
    _say(f"written: {PAGE.relative_to(PROJECT)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench",
        description="Measure this system against its peers. Do not use the machine meanwhile.",
    )
    parser.add_argument(
        "--cases", type=lambda text: text.split(","), default=CASES, metavar="CASE,...", help=", ".join(CASES)
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured runs of each contender (default: 5)")
    parser.add_argument(
        "--short",
        action="store_true",
        help="a thousandth of the work, to check that everything runs; no page is written",
    )
    parser.add_argument("--results", default=str(RESULTS), help="folder of the results")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"unknown case {', '.join(sorted(unknown))}; expected one of {', '.join(CASES)}")
    if arguments.rounds < 1:
        parser.error(f"rounds: expected at least 1, found {arguments.rounds}")
    return arguments


def _circumstances(rounds: int) -> dict[str, str]:
    commit = subprocess.run(
        ("git", "rev-parse", "--short=10", "HEAD"), cwd=PROJECT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "at commit": commit or "unknown",
        "rounds": str(rounds),
        "on": f"{os.cpu_count()} cores ({_processor()}),"
        f" {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}",
        "with": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
        ),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
