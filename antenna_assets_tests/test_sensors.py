"""The sensor on a real instance: a run that fails is seen, waits, and is shown to whoever asks for the status."""

from datetime import UTC, datetime, tzinfo
from pathlib import Path

import psycopg
import pytest

from antenna_assets.hours import HOUR, hour_key
from antenna_assets.local_runs import execute, tick
from antenna_assets.requests import FailingHour
from antenna_assets.retries import read_failing_hours, record_failing_hours
from antenna_assets.settings import Settings
from antenna_assets.status import tables
from antenna_assets.streaming.broker import Broker
from antenna_assets_tests.end_to_end.runs import instance
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.runs import send

pytestmark = pytest.mark.services


def test_a_failed_hour_waits_is_shown_in_the_status_and_forgotten_once_it_is_published(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    hour = send(settings, tmp_path / "answers.json", events=300, hours=1)
    read_everything(settings)
    # Late and future events have hours of their own: only this one is looked at.
    connection.execute("DELETE FROM ledger.hour WHERE hour <> %s AND rows = 0", [hour])
    connection.execute("UPDATE ledger.hour SET closed_at = NULL, closed_by = NULL WHERE hour <> %s", [hour])
    connection.execute("ALTER TABLE bytes_agg_app_1h RENAME TO away")
    with instance(tmp_path / "dagster") as dagster:
        (request,) = tick(dagster)
        assert not execute(dagster, request).success
        assert tick(dagster) == []
        (failing,) = read_failing_hours(connection)
        assert (failing.hour, failing.attempts) == (hour, 1)
        assert "Failing hours" in [str(table.title) for table in shown(settings, connection)]
        connection.execute("ALTER TABLE away RENAME TO bytes_agg_app_1h")
        # Half a minute later, that is.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("antenna_assets.sensors.datetime", HalfAMinuteLater)
            (again,) = tick(dagster)
        assert (again.partition_key, again.run_key != request.run_key) == (hour_key(hour), True)
        assert execute(dagster, again).success
        assert tick(dagster) == []
    assert read_failing_hours(connection) == []
    assert "Failing hours" not in [str(table.title) for table in shown(settings, connection)]


class HalfAMinuteLater(datetime):
    """A clock that goes ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + HOUR / 120


def shown(settings: Settings, connection: psycopg.Connection) -> list:
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    return list(tables(connection, settings.topic, broker))


def test_the_same_failing_hours_are_not_written_again(connection: psycopg.Connection) -> None:
    hour = datetime(2026, 11, 22, 10, tzinfo=UTC)
    connection.execute("INSERT INTO ledger.hour (hour) VALUES (%s)", [hour])
    one = FailingHour(hour, 1, "run", hour, hour + HOUR)

    def written() -> tuple | None:
        return connection.execute("SELECT xmin FROM ledger.failing_hour").fetchone()

    record_failing_hours(connection, [one])
    first = written()
    record_failing_hours(connection, [one])
    assert written() == first
    record_failing_hours(connection, [])
    assert written() is None
