"""How the fault tests run the project in processes of their own, and what they send to it."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from antenna_assets.hours import HOUR, hour_of
from antenna_assets.settings import Settings
from antenna_assets.simulator.run import simulate
from antenna_assets.simulator.scenario import Scenario

STREAM = ("antenna_assets.cli", "stream", "--available-now")
PLAIN_STREAM = ("antenna_assets_tests.faults.plain_stream",)


def send(
    settings: Settings, answers: Path, *, seed: int = 1, events: int = 1_000, hours: int = 2, users: int = 20
) -> datetime:
    """Send events of the hours before the present one, something of each kind; returns the first hour."""
    start = hour_of(datetime.now(UTC) - timedelta(minutes=2)) - hours * HOUR
    shares = {"late": 0.02, "malformed": 0.02, "future": 0.002, "unknown_users": 0.01}
    simulate(
        settings,
        Scenario(events=events, seed=seed, start=start, hours=hours, users=users, **shares),
        bootstrap=settings.kafka_bootstrap or "",
        answers=answers,
        append=answers.exists(),
        progress=lambda _count: None,
    )
    return start


def run(
    settings: Settings, module: tuple[str, ...], *, crash_at: str | None = None, seconds: float = 120
) -> tuple[int, str]:
    """Run a module of this project to its end; its exit code and what it said. Java's processes of it have ended too."""
    environment = {**os.environ, **settings.exports()}
    if crash_at is not None:
        environment["ANTENNA_CRASH_AT"] = crash_at
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    children: set[psutil.Process] = set()
    try:
        watched = psutil.Process(process.pid)
        while process.poll() is None and seconds > 0:
            try:
                children.update(child for child in watched.children(recursive=True) if child.name() == "java")
            except psutil.NoSuchProcess:
                continue
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                seconds -= 0.5
        assert process.poll() is not None, "the process did not end in time"
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, f"Java outlived its Python by 20 s: {alive}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        for child in children:
            if child.is_running():
                child.kill()
        said, _ = process.communicate()
    return process.returncode, said


def crash(settings: Settings, module: tuple[str, ...], crash_at: str) -> None:
    """Run a module that must die at the point."""
    code, said = run(settings, module, crash_at=crash_at)
    assert code == -signal.SIGKILL, f"expected to be killed at {crash_at}, ended with {code}: {said}"


def finish(settings: Settings, module: tuple[str, ...]) -> None:
    """Run a module that must succeed."""
    code, said = run(settings, module)
    assert code == 0, said
