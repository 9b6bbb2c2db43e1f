"""`antenna demo` as a newcomer runs it: from an empty state directory to a checked result, and a second time."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("usual_java")]


@pytest.fixture
def home() -> Iterator[Path]:
    # Not under pytest's own folder, whose parents are closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="antenna-demo-"))
    yield folder
    antenna(folder, "down")
    shutil.rmtree(folder)


def antenna(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "antenna_assets.cli", *arguments],
        env={**os.environ, "ANTENNA_HOME": str(home), "COLUMNS": "120", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_demo_ends_with_tables_that_equal_the_answers_and_can_be_run_again_on_spark(home: Path) -> None:
    for engine in ("duckdb", "spark"):
        run = antenna(home, "demo", ANTENNA_STREAM_ENGINE=engine, ANTENNA_ENGINE=engine)
        assert run.returncode == 0, run.stderr
        assert "all tables equal the answers" in run.stdout
        assert "Users over quota" in run.stdout
        assert ("Spark" in run.stderr) == (engine == "spark")
        assert "@" not in run.stdout + run.stderr, "an e-mail address is not for a screen"
    status = antenna(home, "status")
    assert status.stdout.count("6 of 6") >= 4
    down = antenna(home, "down")
    assert "Kafka stopped" in down.stderr
    assert "PostgreSQL stopped" in down.stderr
    assert "run `antenna up`" in antenna(home, "status").stderr
