"""The sensor on a real instance: a run that fails is seen, waits, and is shown to whoever asks for the status."""

from datetime import UTC, datetime, tzinfo
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from antenna_assets.checks import FRESHNESS
from antenna_assets.definitions import build_definitions
from antenna_assets.hours import HOUR, hour_key, hour_of
from antenna_assets.local_runs import execute, tick
from antenna_assets.requests import MOST_ATTEMPTS, FailingHour
from antenna_assets.resources import default_resources
from antenna_assets.retries import read_failing_hours, record_failing_hours
from antenna_assets.schema import ASSETS
from antenna_assets.sensors import closed_hours
from antenna_assets.settings import Settings, load_settings
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


@pytest.mark.usefixtures("settings")
def test_the_sensor_tells_once_when_hours_come_late_and_once_when_they_do_not(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    connection.execute(
        "INSERT INTO ledger.hour (hour, closed_at, closed_by) VALUES (%s, now(), 'clock')",
        [hour_of(datetime.now(UTC)) - 3 * HOUR],
    )

    def told() -> list[tuple[bool, str]]:
        records = dagster.event_log_storage.get_asset_check_execution_history(FRESHNESS, limit=10)
        return [
            (evaluation.passed, evaluation.description or "")
            for record in records
            for evaluation in [record.event.dagster_event.asset_check_evaluation_data]  # type: ignore[union-attr]
        ]

    with instance(tmp_path / "dagster") as dagster:
        cursor = None
        for _ in range(3):
            cursor = evaluated(dagster, cursor)
        ((passed, description),) = told()
        assert (passed, "is due" in description) == (False, True)
        connection.execute("DELETE FROM ledger.hour")
        for _ in range(2):
            cursor = evaluated(dagster, cursor)
        assert [passed for passed, _ in told()] == [True, False]


def evaluated(on: dg.DagsterInstance, cursor: str | None) -> str | None:
    """One tick as the daemon makes it: the events that it asks for are recorded. Returns its cursor."""
    context = dg.build_sensor_context(
        instance=on,
        cursor=cursor,
        repository_def=build_definitions().get_repository_def(),
        sensor_name=closed_hours.name,
        resources={"postgres": default_resources(load_settings())["postgres"]},
    )
    with context:
        result = closed_hours.evaluate_tick(context)
    for event in result.asset_events:
        on.report_runless_asset_event(event)
    return result.cursor


def test_a_stuck_hour_is_not_asked_for_and_said_to_be_stuck(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    hour = hour_of(datetime.now(UTC)) - 3 * HOUR
    connection.execute(
        "INSERT INTO ledger.hour (hour, closed_at, closed_by) VALUES (%s, now(), 'clock')", [hour]
    )
    record_failing_hours(connection, [FailingHour(hour, 0, MOST_ATTEMPTS, "run", hour, hour)])
    with instance(tmp_path / "dagster") as dagster:
        assert tick(dagster) == []
    (failing,) = [table for table in shown(settings, connection) if str(table.title) == "Failing hours"]
    assert "stuck" in list(failing.columns[-1].cells)
    assert "antenna backfill --from" in failing.caption


@pytest.mark.usefixtures("settings")
def test_hours_of_a_backfill_in_progress_are_left_to_it(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    hour = hour_of(datetime.now(UTC)) - 3 * HOUR
    connection.execute(
        "INSERT INTO ledger.hour (hour, closed_at, closed_by) VALUES (%s, now(), 'clock')", [hour]
    )
    with instance(tmp_path / "dagster") as dagster:
        (request,) = tick(dagster)
        assert request.partition_key == hour_key(hour)
        dagster.add_run(
            dg.DagsterRun(
                job_name="__ASSET_JOB",
                status=dg.DagsterRunStatus.STARTED,
                tags={"dagster/partition": hour_key(hour)},
                asset_selection=frozenset(map(dg.AssetKey, ASSETS)),
            )
        )
        assert tick(dagster) == []


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
    one = FailingHour(hour, 7, 1, "run", hour, hour + HOUR)

    def written() -> tuple | None:
        return connection.execute("SELECT xmin FROM ledger.failing_hour").fetchone()

    record_failing_hours(connection, [one])
    first = written()
    record_failing_hours(connection, [one])
    assert written() == first
    record_failing_hours(connection, [])
    assert written() is None
