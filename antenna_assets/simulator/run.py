"""`antenna simulate` and `antenna check`: the scenario, the sender, the answers and the comparison, wired together."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.kafka_config import PLAIN, KafkaConfig
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.lifetimes import LIVE_RETENTION
from antenna_assets.settings import Settings
from antenna_assets.simulator.answers import Answers, known_users
from antenna_assets.simulator.events import messages
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.simulator.send import Sent, send
from antenna_assets.storage.project_files import sql_folder

if TYPE_CHECKING:
    from rich.table import Table

Progress = Callable[[int], None]


def simulate(
    settings: Settings,
    scenario: Scenario,
    *,
    bootstrap: str,
    config: KafkaConfig = PLAIN,
    answers: Path | None,
    append: bool = False,
    rate: float | None = None,
    progress: Progress,
) -> Sent:
    """Send a scenario's messages and write the tables that must come of them.

    Args:
        config: how Kafka is entered.
        answers: where to write the expected tables; None to write none.
        append: the file exists already, and these messages come on top of those it knows.
        rate: messages a second; None is as fast as possible.

    Raises:
        ScenarioError: the stream would reject the hours as too old or in the future.
        SendError: not every message was acknowledged.
        AnswersError: `append` to a file that is not one of answers.
    """
    now = datetime.now(UTC)
    scenario.must_lie_in(max(settings.start, now - settings.horizon), now)
    if answers is None:
        return send(
            messages(scenario),
            bootstrap=bootstrap,
            topic=settings.topic,
            config=config,
            rate=rate,
            progress=progress,
        )
    if append:
        expected = Answers.read(answers)
    else:
        users = known_users(sql_folder() / "seed" / "users.csv")
        expected = Answers(users, window=settings.window, scenario=scenario)
    counted = expected.counted(messages(scenario))
    sent = send(
        counted, bootstrap=bootstrap, topic=settings.topic, config=config, rate=rate, progress=progress
    )
    expected.record(sent.topic, sent.topic_id, sent.offsets)
    expected.write(answers)
    return sent


def send_live(
    settings: Settings, *, bootstrap: str, config: KafkaConfig = PLAIN, rate: float, stop: threading.Event
) -> Sent:
    """Send events of this very moment until `stop` is set."""
    from antenna_assets.simulator.live import live

    return send(live(rate, stop), bootstrap=bootstrap, topic=settings.topic, config=config, rate=rate)


def check(settings: Settings, path: Path, *, postgres_url: str) -> "Table | None":
    """The differences between the answers and the tables, to show; None if there is none.

    Raises:
        AnswersError: the file is not one of answers.
        DatabaseError: the database cannot be reached.
    """
    from antenna_assets.simulator.compare import differences, report
    from antenna_assets.simulator.rejected import counts_by_reason

    rejected_in = counts_by_reason(postgres_url, settings.lake_uri)
    answers = Answers.read(path)
    with connect(postgres_url) as connection:
        live_since = database_now(connection) - LIVE_RETENTION
    found = differences(answers, postgres_url, rejected_in=rejected_in, live_since=live_since)
    return report(found) if found else None
