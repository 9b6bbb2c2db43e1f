"""`antenna demo` as a newcomer runs it: from an empty state directory to a checked result, and a second time."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from antenna_assets.clients.postgres import connect

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


def test_the_served_demo_shows_notices_as_they_arrive_and_ends_what_it_began(home: Path) -> None:
    assert antenna(home, "demo").returncode == 0
    (address,) = re.findall(r"export ANTENNA_POSTGRES_URL=(\S+)", antenna(home, "env").stdout)
    with connect(shlex.split(address)[0]) as connection:
        connection.execute("UPDATE user_metadata SET quota = 1")
    command = [sys.executable, "-m", "antenna_assets.cli", "demo", "--serve"]
    with subprocess.Popen(
        command,
        env={**os.environ, "ANTENNA_HOME": str(home), "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as serving:
        lines = []
        limit = threading.Timer(180, serving.kill)
        limit.start()
        try:
            for line in serving.stdout or ():
                lines.append(line)
                if "notice:" in line:
                    break
            assert "notice:" in lines[-1], "".join(lines)
            children = [int(one) for one in children_of(serving.pid)]
            assert len(children) == 5
            serving.send_signal(signal.SIGINT)
            assert serving.wait(60) == 0
        finally:
            limit.cancel()
            serving.kill()
    assert not [one for one in children if Path(f"/proc/{one}").exists()]


def children_of(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()
