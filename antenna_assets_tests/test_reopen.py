"""`antenna reopen`: after a wrong clock of PostgreSQL, recorded, and only while no stream runs."""

import re
from datetime import datetime, timedelta

import psycopg
import pytest
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.closing_rule import NO_BACKLOG
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.ledger.batch import AttemptFile, BatchContent, BatchPlan
from antenna_assets.ledger.commit import Observation, commit_batch, commit_heartbeat
from antenna_assets.ledger.head import claim_topic, read_head
from antenna_assets.ledger.hours_to_publish import hours_to_publish
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.ledger.seal import seal
from antenna_assets.ledger.stream_lock import require_only_stream
from antenna_assets.settings import Settings
from antenna_assets_tests.alerting import well_within_an_hour
from antenna_assets_tests.faults.test_closing import told_by_status

pytestmark = pytest.mark.services

MINUTE = timedelta(minutes=1)
YEAR = 365 * 24 * HOUR


@pytest.fixture
def ledger(settings: Settings, connection: psycopg.Connection) -> psycopg.Connection:
    claim_topic(connection, settings.topic, "id-1")
    return connection


def land(connection: psycopg.Connection, topic: str, hour: datetime, now: datetime) -> None:
    """A batch with one event of the hour, read while the clock showed `now`."""
    number = read_head(connection, topic).batch + 1
    file = AttemptFile(f"landing/{number}/part", hour, 1, 10, 1)
    commit_batch(
        connection,
        BatchPlan(topic, "id-1", number, now, [OffsetRange(0, number, number + 1)]),
        BatchContent(files=[file], event_times={0: hour}, first_event_time=hour),
        Observation(now, dict.fromkeys([0], NO_BACKLOG)),
        lateness=MINUTE,
    )


def beat(connection: psycopg.Connection, topic: str, now: datetime) -> None:
    batch = read_head(connection, topic).batch
    commit_heartbeat(connection, topic, batch, Observation(now), lateness=MINUTE)


def states(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute(
        "SELECT hour, rows, closed_at IS NOT NULL FROM ledger.hour ORDER BY hour"
    ).fetchall()


def reopen(hour: datetime, *options: str) -> tuple[int, str]:
    run = CliRunner().invoke(app, ["reopen", "--from", hour_key(hour), *options])
    return run.exit_code, " ".join(f"{run.output} {run.exception or ''}".split())


def test_row_26_hours_that_a_wrong_clock_closed_are_opened_again_and_it_is_recorded(
    settings: Settings, ledger: psycopg.Connection
) -> None:
    topic, now = settings.topic, well_within_an_hour(ledger)
    this = hour_of(now)
    land(ledger, topic, this - HOUR, now)
    beat(ledger, topic, now)
    ahead = now + YEAR
    land(ledger, topic, this, ahead)
    land(ledger, topic, hour_of(ahead), ahead)
    beat(ledger, topic, ahead + 2 * HOUR)
    sealed = seal(ledger, this)
    assert len(states(ledger)) > 8_760
    assert "in the future: a clock was wrong; `antenna reopen`" in told_by_status(settings, ledger)
    code, said = reopen(this, "--yes", "--reason", "the clock was a year ahead")
    assert code == 0, said
    assert re.search(r"recorded: 2 closed hours from .* 8,76\d without a row are removed", said)
    assert states(ledger) == [(this - HOUR, 1, True), (this, 1, False), (hour_of(ahead), 1, False)]
    head = read_head(ledger, topic)
    assert (head.low_watermark, head.event_times) == (this, {0: this})
    assert ledger.execute(
        "SELECT from_hour, hours_reopened, hours_removed > 8750, reason FROM ledger.reopening"
    ).fetchall() == [(this, 2, True, "the clock was a year ahead")]
    # Nothing is left to open again.
    assert reopen(this, "--yes") == (0, f"no hour from {hour_key(this)} on is closed")
    # Time goes on: each hour closes when it has ended, and the sealed one is published anew if it got rows.
    land(ledger, topic, this, now)
    beat(ledger, topic, this + 2 * HOUR + 2 * MINUTE)
    assert states(ledger) == [
        (this - HOUR, 1, True),
        (this, 2, True),
        (this + HOUR, 0, True),
        (hour_of(ahead), 1, False),
    ]
    assert [one.hour for one in hours_to_publish(ledger, limit=10)] == [this - HOUR, this, this + HOUR]
    assert seal(ledger, this).generation == sealed.generation + 1


def test_row_26_nothing_is_reopened_under_a_running_stream_nor_without_a_yes(
    settings: Settings, ledger: psycopg.Connection
) -> None:
    now = well_within_an_hour(ledger)
    land(ledger, settings.topic, hour_of(now), now)
    beat(ledger, settings.topic, now + 5 * HOUR)
    before = states(ledger)
    code, said = reopen(hour_of(now))
    assert code == 1
    assert "Reopen them?" in said
    with connect(settings.postgres_url or "") as other:
        require_only_stream(other)
        code, said = reopen(hour_of(now), "--yes")
    assert code == 1
    assert "another stream is running" in said
    assert states(ledger) == before
    assert ledger.execute("SELECT count(*) FROM ledger.reopening").fetchone() == (0,)


def test_row_26_an_hour_past_the_horizon_or_one_that_has_not_begun_is_refused(
    settings: Settings, ledger: psycopg.Connection
) -> None:
    now = well_within_an_hour(ledger)
    land(ledger, settings.topic, hour_of(now), now)
    beat(ledger, settings.topic, now + 5 * HOUR)
    code, said = reopen(hour_of(now - settings.horizon), "--yes")
    assert code == 1
    assert "expected an hour within the horizon" in said
    code, said = reopen(hour_of(now) + HOUR, "--yes")
    assert code == 1
    assert "expected an hour that has begun" in said
    code, said = reopen(hour_of(now) + MINUTE, "--yes")
    assert code == 1
    assert "expected an hour in UTC such as" in said
