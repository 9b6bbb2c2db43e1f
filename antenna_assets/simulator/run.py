"""`antenna simulate` and `antenna check`: scenario, sender, answers and comparison wired together."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.lifetimes import LIVE_RETENTION
from antenna_assets.settings import Settings
from antenna_assets.simulator.answers import Answers, known_users
from antenna_assets.simulator.answers_file import read_answers, write_answers
from antenna_assets.simulator.events import messages
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.simulator.send import Sent, Target, no_progress, send
from antenna_assets.storage.project_files import sql_folder

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class AnswersFile:
    """Where to write the expected tables; with `append`, on top of the answers that the file has."""

    path: Path
    append: bool = False

    def read(self, settings: Settings, scenario: Scenario) -> Answers:
        """Return the answers to add to: the file's, or empty ones with the users of `sql/seed`.

        Raises:
            AnswersError: `append` to something that is not a file of answers.
        """
        if self.append:
            return read_answers(self.path)
        users = known_users(sql_folder() / "seed" / "users.csv")
        return Answers(users, window=settings.window, scenario=scenario)


def simulate(
    settings: Settings,
    scenario: Scenario,
    target: Target,
    *,
    answers: AnswersFile | None,
    rate: float | None = None,
    progress: Callable[[int], None] = no_progress,
) -> Sent:
    """Send a scenario's messages, and write the tables that must result.

    Args:
        answers: None to write none.
        rate: messages per second; None: as fast as possible.

    Raises:
        ScenarioError: the stream would reject the hours as too old or in the future.
        SendError: not every message was acknowledged.
        AnswersError: the answers cannot be added to.
    """
    now = datetime.now(UTC)
    scenario.require_within(max(settings.start, now - settings.horizon), now)
    if answers is None:
        return send(messages(scenario), target, rate=rate, progress=progress)
    expected = answers.read(settings, scenario)
    sent = send(expected.counted(messages(scenario)), target, rate=rate, progress=progress)
    expected.record(sent.topic, sent.topic_id, sent.offsets)
    write_answers(expected, answers.path)
    return sent


def send_live(target: Target, *, rate: float, stop: threading.Event) -> Sent:
    """Send events of the present, at `rate` per second, until `stop` is set."""
    from antenna_assets.simulator.live import live

    return send(live(rate, stop), target, rate=rate)


def check(settings: Settings, path: Path, *, postgres_url: str) -> "Table | None":
    """Return the differences between the answers in a file and the tables; None if there are none.

    Raises:
        AnswersError: the file is not one of answers.
        DatabaseError: the database cannot be reached.
    """
    from antenna_assets.simulator.compare import differences, report
    from antenna_assets.simulator.rejected import counts_by_reason

    rejected_in = counts_by_reason(postgres_url, settings.lake_uri)
    answers = read_answers(path)
    with connect(postgres_url) as connection:
        live_since = database_now(connection) - LIVE_RETENTION
    found = differences(
        answers, postgres_url, rejected_in=rejected_in, live_since=live_since, live=settings.live_windows
    )
    return report(found) if found else None
