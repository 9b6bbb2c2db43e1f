"""Dagster's real daemon for the fault tests: started as a user would, on PostgreSQL, and killed with all that it started.

What it did is read from its own tables, so that nothing of Dagster runs in the test's process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psutil

import antenna_assets
from antenna_assets.clients.postgres import connect, dagster_url
from antenna_assets.settings import Settings
from antenna_assets.storage.project_files import docker_folder, workspace_file

IN_PROGRESS = ("NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING")


class Dagster:
    """A Dagster home of the test's own; `start` runs the daemon on it, `kill` SIGKILLs what was started."""

    def __init__(self, settings: Settings, home: Path, scratch: str) -> None:
        self.url = settings.postgres_url or ""
        self.home = home
        home.mkdir()
        shutil.copyfile(docker_folder() / "dagster.yaml", home / "dagster.yaml")
        # Who carries this home in its environment was started by this object, orphans included.
        self.environment = {
            **os.environ,
            **settings.exports(),
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": dagster_url(self.url),
            # What is killed leaves sockets and files there.
            "TMPDIR": scratch,
            # Dagster's commands are scripts: they would look for the project only where it is installed.
            "PYTHONPATH": str(Path(antenna_assets.__file__).parent.parent),
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *, crash_at: str | None = None) -> subprocess.Popen[bytes]:
        """Start the daemon; it starts the code server, and this the runs' workers."""
        return self.run(
            str(Path(sys.executable).with_name("dagster-daemon")),
            *("run", "--workspace", str(workspace_file())),
            crash_at=crash_at,
        )

    def stop_sensor(self) -> None:
        """Stop both sensors, before `start`: only what the caller asks for is run."""
        program = str(Path(sys.executable).with_name("dagster"))
        for sensor in ("closed_hours", "ended_periods"):
            stopped = self.run(program, "sensor", "stop", sensor, "--workspace", str(workspace_file()))
            assert stopped.wait(60) == 0

    def run(self, *command: str, crash_at: str | None = None) -> subprocess.Popen[bytes]:
        """Start a command on this home."""
        environment = self.environment | ({} if crash_at is None else {"ANTENNA_CRASH_AT": crash_at})
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.home, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self._started.append(process)
        return process

    def processes(self) -> dict[int, list[str]]:
        """Pid and command line of each process on this home."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.environ().get("DAGSTER_HOME") == str(self.home)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = process.cmdline()
        return found

    def code_servers(self) -> list[int]:
        """The processes in which the sensor runs."""
        return [pid for pid, command in self.processes().items() if _is_code_server(command)]

    def workers(self) -> list[int]:
        """The processes in which runs go on, paused ones included."""
        return [
            pid for pid, command in self.processes().items() if any("spawn_main" in part for part in command)
        ]

    def kill_the_daemon(self) -> int:
        """SIGKILL the daemon alone. Its code server ends by itself after 20 s, or when its runs have ended."""
        return _kill(pid for pid, command in self.processes().items() if _is_daemon(command))

    def kill_all_but_the_workers(self) -> int:
        """SIGKILL the daemon and its code server; runs that go on do so as orphans."""
        return _kill(
            pid
            for pid, command in self.processes().items()
            if _is_daemon(command) or _is_code_server(command)
        )

    def kill(self) -> int:
        """SIGKILL everything on this home at once; how many processes that were."""
        killed = 0
        while found := self.processes():
            killed += _kill(found)
            for process in self._started:
                process.poll()
            time.sleep(0.02)
        for process in self._started:
            process.wait(10)
        return killed

    def runs(self) -> dict[str, str]:
        """The runs of hours and their statuses, oldest first. None before Dagster made its tables."""
        with connect(self.url) as connection:
            if connection.execute("SELECT to_regclass('dagster.runs')").fetchone() == (None,):
                return {}
            return dict(
                connection.execute(
                    "SELECT run_id, status FROM dagster.runs"
                    # Days that happen to be over.
                    " WHERE pipeline_name NOT IN ('daily_usage', 'monthly_usage') ORDER BY id"
                ).fetchall()
            )

    def in_progress(self) -> dict[str, str]:
        """The runs that did not end yet."""
        return {run: status for run, status in self.runs().items() if status in IN_PROGRESS}

    def ticks(self) -> int:
        """How many ticks of the hours' sensor were begun."""
        with connect(self.url) as connection:
            if connection.execute("SELECT to_regclass('dagster.job_ticks')").fetchone() == (None,):
                return 0
            (count,) = connection.execute(
                "SELECT count(*) FROM dagster.job_ticks WHERE tick_body::json ->> 'job_name' = 'closed_hours'"
            ).fetchone() or (0,)
            return int(count)

    def let_time_pass(self, time_: timedelta) -> None:
        """Make the sensor's last tick older, as if the daemon had been down for that time."""
        with connect(self.url) as connection:
            for id_, text in connection.execute(
                "SELECT id, instigator_body FROM dagster.instigators"
            ).fetchall():
                state = json.loads(text)
                data = state["job_specific_data"]
                for name in ("last_tick_timestamp", "last_tick_start_timestamp"):
                    if data.get(name) is not None:
                        data[name] -= time_.total_seconds()
                connection.execute(
                    "UPDATE dagster.instigators SET instigator_body = %s WHERE id = %s",
                    [json.dumps(state), id_],
                )


def _is_daemon(command: list[str]) -> bool:
    return any(part.endswith("dagster-daemon") for part in command)


def _is_code_server(command: list[str]) -> bool:
    return {"api", "grpc"} <= set(command)


def _kill(pids: Iterable[int]) -> int:
    killed = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


@contextmanager
def dagster(settings: Settings, home: Path, *, show_log: bool = True) -> Iterator[Dagster]:
    """A Dagster home whose processes are all gone at the end of the block. Pytest shows the log if the test fails."""
    # A short path: the name of a socket must stay under 100 characters.
    scratch = tempfile.mkdtemp(prefix="antenna-")
    found = Dagster(settings, home, scratch)
    try:
        yield found
    finally:
        found.kill()
        shutil.rmtree(scratch)
        if show_log:
            print((home / "log").read_text(encoding="utf-8", errors="replace"))  # noqa: T201


def wait_for(condition: Callable[[], object], seconds: float = 300) -> float:
    """Wait until the condition holds; the seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, f"waited {seconds} s"
        time.sleep(0.2)
    return time.monotonic() - began
