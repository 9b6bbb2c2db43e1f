"""How the fault tests run the project in processes of their own, and what they send to it."""

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.settings import Settings
from antenna_assets.simulator.run import AnswersFile, simulate
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.simulator.send import Target
from antenna_assets_tests.faults.processes import Process

STREAM = ("antenna_assets.cli", "stream", "--available-now")
LIVE_STREAM = ("antenna_assets.cli", "stream")
PLAIN_STREAM = ("antenna_assets_tests.faults.plain_stream",)


def first_hour(hours: int) -> datetime:
    """The first of so many hours before the present one. When the stream reads them, one more may be over and quiet."""
    return hour_of(datetime.now(UTC) - timedelta(minutes=2)) - hours * HOUR


def send(
    settings: Settings,
    answers: Path,
    *,
    seed: int = 1,
    events: int = 1_000,
    start: datetime | None = None,
    hours: int = 2,
    users: int = 20,
    rate: float | None = None,
    progress: Callable[[int], None] = lambda _count: None,
) -> datetime:
    """Send events of hours from `start` on, something of each kind; returns the first hour.

    Without a start they are the hours before the present one.
    """
    start = start or first_hour(hours)
    shares = {"late": 0.02, "malformed": 0.02, "future": 0.002, "unknown_users": 0.01}
    simulate(
        settings,
        Scenario(events=events, seed=seed, start=start, hours=hours, users=users, **shares),
        Target(settings.kafka_bootstrap or "", settings.topic),
        answers=AnswersFile(answers, append=answers.exists()),
        rate=rate,
        progress=progress,
    )
    return start


def run(
    settings: Settings, module: tuple[str, ...], *, crash_at: str | None = None, seconds: float = 120
) -> tuple[int, str]:
    """Run a module of this project to its end; its exit code and what it said. Java's processes of it have ended too."""
    extra = {} if crash_at is None else {"ANTENNA_CRASH_AT": crash_at}
    with Process(settings, module, **extra) as process:
        code = process.wait(seconds)
        return code, process.said


def crash(settings: Settings, module: tuple[str, ...], crash_at: str) -> None:
    """Run a module that must die at the point."""
    code, said = run(settings, module, crash_at=crash_at)
    assert code == -signal.SIGKILL, f"expected to be killed at {crash_at}, ended with {code}: {said}"


def finish(settings: Settings, module: tuple[str, ...]) -> None:
    """Run a module that must succeed."""
    code, said = run(settings, module)
    assert code == 0, said
