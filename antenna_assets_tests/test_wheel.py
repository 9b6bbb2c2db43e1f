"""The wheel, alone in a fresh environment outside the checkout, does all that a checkout does."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from antenna_assets.stack import superset
from antenna_assets.stack.jars import ensure, jars_home
from antenna_assets_tests.installing import CHECKOUT, build_wheel, environment, uv


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(CHECKOUT, tmp_path_factory.mktemp("wheel"))


def files(folder: str) -> set[str]:
    """The paths of a folder's files in the checkout, but for what Python compiled."""
    paths = (CHECKOUT / folder).rglob("*")
    return {
        str(path.relative_to(CHECKOUT))
        for path in paths
        if path.is_file() and path.parent.name != "__pycache__"
    }


def test_the_wheel_carries_the_package_and_what_its_commands_read_beside_it(wheel: Path) -> None:
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    beside = {
        "docker/dagster.yaml",
        "docker/superset/assets.py",
        "docker/superset/requirements.lock",
        "docker/superset/superset_config.py",
        "docker/superset/usage_session.py",
        "workspace.yaml",
        *files("docker/superset/assets"),
        *files("sql"),
    }
    assert carried == {*files("antenna_assets"), *(f"antenna_assets/_project/{name}" for name in beside)}


class Installed:
    """The wheel in an environment of its own, with a state directory of its own."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder, self._environment = folder, folder / "venv"
        (folder / "tmp").mkdir()
        self._variables = {
            "PATH": f"{self._environment / 'bin'}:/usr/bin:/bin",
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "ANTENNA_HOME": str(folder / "state"),
            "COLUMNS": "120",
        }
        environment(self._environment, CHECKOUT / "requirements" / "run.lock", wheel)
        self._link_what_was_downloaded()

    def _link_what_was_downloaded(self) -> None:
        """Jars and Superset's environment: their downloads have tests of their own."""
        share = self._environment / "share" / "antenna"
        ensure("kafka")
        shutil.copytree(jars_home() / "kafka", share / "jars" / "kafka", copy_function=os.link)
        superset.install(print)
        (share / "superset").symlink_to(superset.ENVIRONMENT)

    def start(self, *command: str, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self._variables, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, ends_with: int = 0, **variables: str) -> str:
        """What a command told; it must end with this exit code."""
        process = self.start(*command, **variables)
        told, _ = process.communicate()
        assert process.returncode == ends_with, f"{' '.join(command)}: {told}"
        return told

    def processes(self) -> list[str]:
        """The command lines of processes that have to do with it."""
        lines = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:  # it has ended
                continue
            if str(self.folder) in line:
                lines.append(line)
        return lines


@pytest.fixture
def installed(wheel: Path) -> Iterator[Installed]:
    # Not under pytest's own folder, whose parents are closed to the user that PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="antenna-wheel-"))
    folder.chmod(0o755)
    try:
        made = Installed(folder, wheel)
        yield made
        made.run("antenna", "down")
    finally:
        shutil.rmtree(folder)


@pytest.mark.services
@pytest.mark.timeout(900)
def test_an_hour_from_doctor_to_report_and_dashboards_in_a_fresh_environment(installed: Installed) -> None:
    uv("pip", "check", "--python", str(installed.folder / "venv"))
    where = "import antenna_assets.definitions as found; print(found.__file__)"
    assert installed.run("python", "-c", where).startswith(f"{installed.folder}/venv/lib/")

    assert "run `antenna up`" in " ".join(installed.run("antenna", "doctor", ends_with=1).split())
    installed.run("antenna", "up")
    installed.run("antenna", "doctor")

    day = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    how = ("--events", "2000", "--seed", "7", "--hours", "1", "--late", "0.01", "--malformed", "0.01")
    installed.run("antenna", "simulate", *how, "--start", f"{day}T10:00:00Z", "--answers", "answers.json")
    installed.run("antenna", "stream", "--available-now")
    exported = dict(re.findall(r"^export (\w+)='?(.*?)'?$", installed.run("antenna", "env"), re.MULTILINE))
    job = ("-m", "antenna_assets.definitions", "-j", "hourly_usage")
    tags = json.dumps({"dagster/partition": f"{day}-10:00"})
    installed.run("dagster", "job", "execute", *job, "--tags", tags, **exported)
    installed.run("antenna", "check", "--answers", "answers.json")
    installed.run("antenna", "verify")
    installed.run("antenna", "report", "--day", day, "--output", "report.html")
    assert "<svg" in (installed.folder / "report.html").read_text()

    assert dashboards(installed) == {"usage-and-quota", "trust", "alerts"}

    installed.run("antenna", "down")
    assert installed.processes() == []
    assert [*(installed.folder / "tmp").iterdir()] == []


def dashboards(installed: Installed) -> set[str]:
    """What Superset has, once `antenna dashboards` says where it is."""
    process = installed.start("antenna", "dashboards")
    try:
        assert process.stdout is not None
        told = ""
        while (found := re.search(r"(http://[\d.:]+)/.*user (\w+), password (\S+)", told, re.DOTALL)) is None:
            line = process.stdout.readline()
            assert line, told
            told += line
        url, user, password = found.groups()
        login = {"username": user, "password": password, "provider": "db"}
        token = _answer(f"{url}/api/v1/security/login", login)["access_token"]
        listed = _answer(f"{url}/api/v1/dashboard/", authorization=f"Bearer {token}")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 0
    return {dashboard["slug"] for dashboard in listed["result"]}


def _answer(url: str, content: dict[str, str] | None = None, **headers: str) -> dict[str, Any]:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
