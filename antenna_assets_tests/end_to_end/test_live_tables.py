"""`ANTENNA_LIVE`: live tables that are left out, have longer windows, or come back, and everything that reads them."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.schema import HOURLY_TABLES, LIVE_TABLES
from antenna_assets.settings import Settings, SettingsError, load_settings
from antenna_assets.streaming.job import Stream
from antenna_assets.verify.claims.live import live_equals_hourly
from antenna_assets_tests.alerting import well_within_an_hour
from antenna_assets_tests.commands import antenna
from antenna_assets_tests.end_to_end.runs import instance, publish_what_the_sensor_asks_for
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.stream_engines import EACH_ENGINE

pytestmark = pytest.mark.services

NewStream = Callable[..., Stream]


def with_live(settings: Settings, live: str) -> Settings:
    return settings.model_copy(update={"live": live})


def windows(connection: psycopg.Connection, table: str) -> set[timedelta]:
    """How far into its hour each window begins."""
    query = sql.SQL("SELECT DISTINCT date FROM {}").format(sql.Identifier(table))
    return {date - date.replace(minute=0) for (date,) in connection.execute(query)}


def compared(connection: psycopg.Connection, hour: datetime) -> dict[str, str]:
    """What the check says of each live table."""
    now = database_now(connection)
    return {
        name: live_equals_hourly(connection, live, HOURLY_TABLES[f"{name}_1h"], [hour], now)[hour].message
        for name, live in LIVE_TABLES.items()
    }


@EACH_ENGINE
def test_users_may_have_one_running_row_an_hour_and_another_table_may_be_left_out(
    settings: Settings, new_stream: NewStream, tmp_path: Path
) -> None:
    settings = with_live(settings, "antenna, user: 1 hour")
    send(settings, tmp_path / "answers.json", events=400, hours=2)
    new_stream(settings).read_available()
    with instance() as dagster:
        publish_what_the_sensor_asks_for(dagster)
    assert_exact(settings, tmp_path / "answers.json", published=True)
    with connect(settings.postgres_url or "") as connection:
        assert windows(connection, "bytes_agg_user") == {timedelta(0)}
        assert len(windows(connection, "bytes_agg_antenna")) > 6
        assert windows(connection, "bytes_agg_app") == set()
        ((hour,),) = connection.execute("SELECT min(hour) FROM ledger.hour WHERE rows > 0").fetchall()
        said = compared(connection, hour)
    assert said["bytes_agg_app"] == "not compared: ANTENNA_LIVE leaves bytes_agg_app out"
    assert said["bytes_agg_user"].endswith("0 keys differ")
    assert said["bytes_agg_antenna"].endswith("0 keys differ")


def test_a_table_that_comes_back_is_compared_from_its_first_whole_hour_on(
    settings: Settings, new_stream: NewStream, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    with connect(settings.postgres_url or "") as connection:
        well_within_an_hour(connection)
    first = send(settings, answers, events=200, hours=1)
    new_stream(with_live(settings, "antenna, app")).read_available()
    send(settings, answers, seed=2, events=200, start=first, hours=1)
    new_stream(settings).read_available()
    with instance() as dagster:
        publish_what_the_sensor_asks_for(dagster)
    with connect(settings.postgres_url or "") as connection:
        next_hour = database_now(connection).replace(minute=0, second=0, microsecond=0) + HOUR
        said = compared(connection, first)
        assert (
            said["bytes_agg_user"]
            == f"not compared: ANTENNA_LIVE names bytes_agg_user since {hour_key(next_hour)}"
        )
        assert said["bytes_agg_app"].endswith("0 keys differ")
        # A start that changes nothing leaves it so.
        new_stream(settings).read_available()
        assert compared(connection, first) == said


def test_a_replay_adds_to_the_tables_that_the_stream_keeps_whatever_its_shell_says(
    settings: Settings, new_stream: NewStream, tmp_path: Path
) -> None:
    send(settings, tmp_path / "answers.json", events=300, hours=1)
    new_stream(with_live(settings, "antenna, app")).read_available()
    with connect(settings.postgres_url or "") as connection:
        ((hour,),) = connection.execute("SELECT min(hour) FROM ledger.hour WHERE rows > 0").fetchall()
        event = {
            "bytes": 7,
            "timestamp": int(hour.timestamp()),
            "app": "replayed",
            "id": "u",
            "antenna_id": "n",
        }
        transform = tmp_path / "transform.py"
        transform.write_text(
            f"def transform(value):\n    return {json.dumps(event).encode()!r}\n", encoding="utf-8"
        )
        run = antenna("quarantine", "replay", "--all", "--transform", str(transform), **settings.exports())
        assert run.returncode == 0, run.stderr
        assert connection.execute("SELECT count(*) FROM bytes_agg_user").fetchone() == (0,)
        found = connection.execute("SELECT count(*) > 0 FROM bytes_agg_app WHERE app = 'replayed'")
        assert found.fetchone() == (True,)


@pytest.mark.parametrize(
    ("live", "said"),
    [
        ("antenna, users", "found 'users'"),
        ("app, app", "each once"),
        ("user: 7 minutes", "expected a length that divides an hour, found 7 minutes"),
        ("user: often", "expected a duration such as '5 minutes'"),
    ],
)
def test_what_is_no_live_table_is_refused(monkeypatch: pytest.MonkeyPatch, live: str, said: str) -> None:
    monkeypatch.setenv("ANTENNA_LIVE", live)
    with pytest.raises(SettingsError, match=said):
        load_settings()
