"""Where the hourly partitions begin: recorded at the first start, read without a database, and never after an hour that is there."""

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from antenna_assets.domain.hours import HOUR
from antenna_assets.ledger.first_partition import (
    StartTooLate,
    first_partition,
    record_first_partition,
    require_start,
)
from antenna_assets.settings import FIRST_START, Settings, SettingsError, load_settings, start_file
from antenna_assets.stack.start import start
from antenna_assets.streaming.job import Stream

NINE = datetime(2026, 11, 22, 9, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def quiet(connection: psycopg.Connection, hour: datetime) -> None:
    connection.execute(
        "INSERT INTO ledger.hour (hour, closed_at, closed_by) VALUES (%s, now(), 'clock')", [hour]
    )


@pytest.mark.parametrize(
    ("made", "horizon", "first"),
    [
        (datetime(2026, 11, 28, 7, tzinfo=UTC), 35 * DAY, datetime(2026, 9, 27, tzinfo=UTC)),
        (datetime(2028, 3, 1, tzinfo=UTC), DAY, datetime(2028, 2, 29, tzinfo=UTC)),
        (
            datetime(2026, 11, 28, 7, tzinfo=UTC),
            timedelta(minutes=90),
            datetime(2026, 10, 31, 22, tzinfo=UTC),
        ),
        (datetime(2026, 11, 28, 7, tzinfo=UTC), 36_500 * DAY, FIRST_START),
        (datetime(1999, 1, 1, tzinfo=UTC), DAY, FIRST_START),
    ],
)
def test_the_first_partition_is_the_month_of_the_first_start_minus_the_horizon(
    made: datetime, horizon: timedelta, first: datetime
) -> None:
    assert first_partition(made, horizon) == first


@pytest.mark.services
def test_it_is_recorded_once_and_read_from_the_state_directory(
    connection: psycopg.Connection, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load_settings().start == FIRST_START
    first = record_first_partition(connection, load_settings())
    assert load_settings().start == first > FIRST_START
    # Another state directory of the same ledger, with another horizon and hours since.
    quiet(connection, first)
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path / "another"))
    monkeypatch.setenv("ANTENNA_HORIZON", "90 days")
    assert record_first_partition(connection, load_settings()) == load_settings().start == first
    monkeypatch.setenv("ANTENNA_START", "2026-02-01T00:00:00Z")
    assert load_settings().start == datetime(2026, 2, 1, tzinfo=UTC)
    assert [path.name for path in home.iterdir()] == ["first-partition"]


@pytest.mark.services
@pytest.mark.usefixtures("home")
def test_the_partitions_of_a_ledger_from_before_this_begin_where_they_did(
    connection: psycopg.Connection,
) -> None:
    quiet(connection, NINE)
    assert record_first_partition(connection, load_settings()) == FIRST_START
    connection.execute("DELETE FROM ledger.first_partition")
    quiet(connection, FIRST_START - HOUR)
    assert record_first_partition(connection, load_settings()) == FIRST_START - HOUR


@pytest.mark.services
def test_the_ledger_that_was_restored_says_where_partitions_begin_and_not_the_new_state_directory(
    connection: psycopg.Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_file(settings.home).write_text("2026-12-01T00:00:00+00:00\n")
    quiet(connection, NINE)
    connection.execute("INSERT INTO ledger.first_partition (hour) VALUES (%s)", [NINE - 9 * DAY])
    # As `eval "$(antenna env)"` leaves it.
    for name, value in load_settings().exports().items():
        monkeypatch.setenv(name, value)
    start(load_settings(), lambda _line: None)
    assert load_settings().start == NINE - 9 * DAY
    assert "ANTENNA_START" not in load_settings().exports()
    monkeypatch.setenv("ANTENNA_START", "2026-02-01T00:00:00Z")
    assert load_settings().exports()["ANTENNA_START"] == "2026-02-01T00:00:00+00:00"


def test_a_torn_file_is_named_with_what_to_do(home: Path) -> None:
    home.mkdir()
    start_file(home).write_text("20")
    with pytest.raises(SettingsError, match="first-partition: expected .*, found '20'; remove the file"):
        load_settings()


def test_dagsters_definitions_are_loaded_without_a_database(home: Path) -> None:
    home.mkdir()
    start_file(home).write_text("2026-10-01T00:00:00+00:00\n")
    program = "from antenna_assets.defs.partitions import HOURS; print(HOURS.get_first_partition_key())"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ)
    )
    assert said.stdout == "2026-10-01-00:00\n", said.stderr


@pytest.mark.services
@pytest.mark.usefixtures("settings")
def test_a_start_after_hours_that_are_there_is_refused_by_up_and_by_the_stream(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet(connection, NINE)
    quiet(connection, NINE + HOUR)
    require_start(connection, NINE)
    monkeypatch.setenv("ANTENNA_START", "2026-11-22T10:00:00Z")
    late = load_settings()
    refusal = (
        "ANTENNA_START: expected 2026-11-22-09:00 or earlier, the oldest of the 1 hour that the ledger has before it, "
        "found 2026-11-22-10:00"
    )
    with pytest.raises(StartTooLate, match=refusal):
        start(late, lambda _line: None)
    stream = Stream(
        late,
        postgres_url=late.postgres_url or "",
        kafka_bootstrap=late.kafka_bootstrap or "",
        say=lambda _line: None,
        stop=threading.Event(),
    )
    with pytest.raises(StartTooLate, match=refusal):
        stream.read_available()
