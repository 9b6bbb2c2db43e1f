"""The sensor on a real instance, tick by tick: whatever other hours, runs and storages do, each hour is asked for or named."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.storage.runs.schema import RunsTable
from rich.console import Console

from antenna_assets.definitions import build_definitions
from antenna_assets.defs.checks import FRESHNESS
from antenna_assets.defs.requested_runs import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from antenna_assets.defs.resources import default_resources
from antenna_assets.defs.sensors import closed_hours
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.domain.schema import ASSETS
from antenna_assets.ledger.certificate import record_and_certify
from antenna_assets.ledger.failing import MOST_ATTEMPTS, read_failing_hours
from antenna_assets.ledger.hours_to_publish import read_left_out
from antenna_assets.ledger.seal import seal
from antenna_assets.operations.metrics import LedgerCollector
from antenna_assets.operations.status import tables
from antenna_assets.settings import Settings, load_settings
from antenna_assets_tests.alerting import well_within_an_hour
from antenna_assets_tests.end_to_end.runs import hours_of, instance
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.local_runs import execute, tick
from antenna_assets_tests.publications import publication
from antenna_assets_tests.test_ledger import land, publish
from antenna_assets_tests.test_metrics import no_broker

pytestmark = pytest.mark.services

MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _within_an_hour(connection: psycopg.Connection) -> None:
    """Hours are counted from the present one, and none ends in a test."""
    well_within_an_hour(connection)


def past(number: int) -> datetime:
    """The hour that began so many hours before the present one."""
    return hour_of(datetime.now(UTC)) - number * HOUR


def close(connection: psycopg.Connection, *hours: datetime) -> None:
    """Quiet hours, closed and not published."""
    for hour in hours:
        connection.execute(
            "INSERT INTO ledger.hour (hour, closed_at, closed_by) VALUES (%s, now(), 'clock')", [hour]
        )


def publish_all(connection: psycopg.Connection, *hours: datetime) -> None:
    for hour in hours:
        generation = seal(connection, hour).generation
        for asset in ASSETS:
            publish(connection, asset, generation, hour)


def fail(connection: psycopg.Connection, *hours: datetime, attempts: int, since: timedelta = HOUR) -> None:
    """As if runs had failed, the last of them so long ago."""
    for hour in hours:
        connection.execute(
            "INSERT INTO ledger.failing_hour (hour, batch, attempts, run_id, ended, next_attempt, certificate)"
            " VALUES (%(hour)s, 7, %(attempts)s, 'run', now() - %(since)s, now() - %(since)s + interval '1 hour', 0)",
            {"hour": hour, "attempts": attempts, "since": since},
        )


def run_of(
    on: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus = dg.DagsterRunStatus.FAILURE
) -> str:
    """A run as the daemon makes it of a request, that has come so far; its id."""
    tags = {**request.tags, "dagster/run_key": str(request.run_key)}
    if request.partition_key:
        tags[PARTITION_TAG] = request.partition_key
    ended = status == dg.DagsterRunStatus.FAILURE
    run = dg.DagsterRun(
        job_name="hourly_usage", status=dg.DagsterRunStatus.STARTED if ended else status, tags=tags
    )
    on.add_run(run)
    if ended:
        on.report_run_failed(run)
    return run.run_id


def let_days_pass(on: dg.DagsterInstance, connection: psycopg.Connection, days: int) -> None:
    """As if everything so far had happened so much earlier."""
    past_ = timedelta(days=days)
    connection.execute("UPDATE ledger.request SET asked_at = asked_at - %s", [past_])
    connection.execute(
        "UPDATE ledger.failing_hour SET ended = ended - %(past)s, next_attempt = next_attempt - %(past)s",
        {"past": past_},
    )
    with on.run_storage.connect() as runs:  # type: ignore[attr-defined]
        for row in runs.execute(RunsTable.select()).mappings().fetchall():
            runs.execute(
                RunsTable.update()
                .where(RunsTable.c.run_id == row["run_id"])
                .values(
                    create_timestamp=row["create_timestamp"] - past_,
                    update_timestamp=row["update_timestamp"] - past_,
                    end_time=row["end_time"] and row["end_time"] - past_.total_seconds(),
                )
            )


def shown(connection: psycopg.Connection) -> dict[str, str]:
    """The tables of the status by their titles, as text."""
    found = {}
    for table in tables(connection, "devices", None):
        console = Console(file=StringIO(), width=200, record=True)
        console.print(table)
        found[str(table.title)] = console.export_text()  # type: ignore[union-attr]
    return found


def scraped(postgres_url: str) -> dict[str, float]:
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for metric in LedgerCollector(postgres_url, no_broker).collect()
        for sample in metric.samples
    }


def test_a_failed_hour_waits_is_shown_in_the_status_and_forgotten_once_it_is_published(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    hour = send(settings, tmp_path / "answers.json", events=300, hours=1)
    read_everything(settings)
    # Late and future events have hours of their own: only this one is looked at.
    connection.execute("DELETE FROM ledger.hour WHERE hour <> %s AND rows = 0", [hour])
    connection.execute("UPDATE ledger.hour SET closed_at = NULL, closed_by = NULL WHERE hour <> %s", [hour])
    connection.execute("ALTER TABLE bytes_agg_app_1h RENAME TO away")
    with instance() as dagster:
        (request,) = tick(dagster)
        assert not execute(dagster, request).success
        assert tick(dagster) == []
        (failing,) = read_failing_hours(connection)
        assert (failing.hour, failing.attempts) == (hour, 1)
        assert failing.next_attempt - failing.ended == MINUTE / 2
        assert "Failing hours" in shown(connection)
        connection.execute("ALTER TABLE away RENAME TO bytes_agg_app_1h")
        # Half a minute later, that is.
        connection.execute("UPDATE ledger.failing_hour SET next_attempt = now()")
        (again,) = tick(dagster)
        assert (again.partition_key, again.run_key != request.run_key) == (hour_key(hour), True)
        assert execute(dagster, again).success
        assert tick(dagster) == []
    assert read_failing_hours(connection) == []
    assert connection.execute("SELECT count(*) FROM ledger.request").fetchone() == (0,)
    assert "Failing hours" not in shown(connection)


@pytest.mark.usefixtures("settings")
def test_the_sensor_tells_once_when_hours_come_late_and_once_when_they_do_not(
    connection: psycopg.Connection,
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

    with instance() as dagster:
        cursor = None
        for _ in range(3):
            cursor = evaluated(dagster, cursor).cursor
        ((passed, description),) = told()
        assert (passed, "is due" in description) == (False, True)
        connection.execute("DELETE FROM ledger.hour")
        for _ in range(2):
            cursor = evaluated(dagster, cursor).cursor
        assert [passed for passed, _ in told()] == [True, False]


def evaluated(on: dg.DagsterInstance, cursor: str | None = None) -> SensorExecutionData:
    """One tick as the daemon makes it: the events that it asks for are recorded."""
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
    return result


def test_a_stuck_hour_is_not_asked_for_and_said_to_be_stuck_until_rows_come_for_it(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    land(connection, 7, past(3), 10)
    fail(connection, past(3), attempts=MOST_ATTEMPTS)
    assert tick(dagster) == []
    failing = shown(connection)["Failing hours"]
    assert "stuck" in failing
    assert "antenna backfill --from" in failing
    land(connection, 8, past(3), 1)
    assert hours_of(tick(dagster)) == [past(3)]
    # It is named until it is published.
    assert [one.attempts for one in read_failing_hours(connection)] == [MOST_ATTEMPTS]


def test_hours_of_a_backfill_in_progress_are_left_to_it(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    close(connection, past(3))
    (request,) = tick(dagster)
    assert request.partition_key == hour_key(past(3))
    dagster.add_run(
        dg.DagsterRun(
            job_name="__ASSET_JOB",
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": hour_key(past(3))},
            asset_selection=frozenset(map(dg.AssetKey, ASSETS)),
        )
    )
    assert tick(dagster) == []


@pytest.mark.parametrize(
    "tags",
    [
        {RANGE_START_TAG: "2026-01-01-00:00"},
        {RANGE_END_TAG: "2026-01-01-00:00"},
        {RANGE_START_TAG: "0001-01-01-00:00", RANGE_END_TAG: "0999-12-31-23:00"},
        {RANGE_START_TAG: "2026-03-01-00:00", RANGE_END_TAG: "2026-02-01-00:00"},
        {RANGE_START_TAG: "2026-03-01-00:30", RANGE_END_TAG: "tomorrow"},
        {PARTITION_TAG: "9999-12-31-23:00"},
        {},
    ],
)
def test_row_27_a_run_for_hours_that_are_none_fails_no_tick(
    connection: psycopg.Connection, dagster: dg.DagsterInstance, tags: dict[str, str]
) -> None:
    close(connection, past(3))
    dagster.add_run(dg.DagsterRun(job_name="hourly_usage", status=dg.DagsterRunStatus.STARTED, tags=tags))
    assert hours_of(tick(dagster)) == [past(3)]


def test_row_27_a_run_for_all_hours_that_could_ever_be_fails_no_tick(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    close(connection, past(3))
    tags = {RANGE_START_TAG: "1000-01-01-00:00", RANGE_END_TAG: "9999-12-31-23:00"}
    run = dg.DagsterRun(job_name="hourly_usage", status=dg.DagsterRunStatus.STARTED, tags=tags)
    dagster.add_run(run)
    assert tick(dagster) == []
    dagster.report_run_failed(run)
    assert hours_of(tick(dagster)) == [past(3)]


def test_row_27_after_a_weekend_without_a_daemon_a_failed_hour_is_asked_for_by_a_new_key(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    close(connection, past(3), past(4))
    spent = set()
    for attempts in range(1, 4):
        (request,) = tick(dagster)
        assert hours_of([request]) == [past(4), past(3)]
        assert request.run_key not in spent
        spent.add(request.run_key)
        run = run_of(dagster, request)
        let_days_pass(dagster, connection, 3)
        if attempts == 2:
            # Dagster's runs are deleted as soon as the ledger knows of them.
            tick(dagster)
            dagster.delete_run(run)
    assert [hours_of([request]) for request in tick(dagster)] == [[past(4), past(3)]]
    assert [one.attempts for one in read_failing_hours(connection)] == [3, 3]


def test_row_27_a_key_is_new_after_dagsters_storage_or_the_ledger_came_back_from_a_backup(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    close(connection, past(3))
    (first,) = tick(dagster)
    run_of(dagster, first)
    # The ledger is from before the request: it knows of no attempt, and Dagster has spent the key.
    connection.execute("DELETE FROM ledger.request")
    (second,) = tick(dagster)
    assert second.run_key != first.run_key
    run_of(dagster, second)
    assert tick(dagster) == []
    # Dagster's storage is from before all of this.
    with instance() as restored:
        assert tick(restored) == []
        connection.execute("UPDATE ledger.failing_hour SET next_attempt = now()")
        (third,) = tick(restored)
    assert len({first.run_key, second.run_key, third.run_key}) == 3
    assert [one.attempts for one in read_failing_hours(connection)] == [1]


def test_row_28_each_run_that_ended_counts_once_and_those_that_dagster_launched_again_with_it(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    close(connection, past(3))
    (request,) = tick(dagster)
    run_of(dagster, request)
    again = dg.DagsterRun(
        job_name="hourly_usage",
        status=dg.DagsterRunStatus.STARTED,
        tags={**request.tags, PARTITION_TAG: hour_key(past(3))},
    )
    dagster.add_run(again)
    assert tick(dagster) == []
    assert read_failing_hours(connection) == []
    dagster.report_run_failed(again)
    for _ in range(3):
        assert tick(dagster) == []
        (failing,) = read_failing_hours(connection)
        assert (failing.attempts, failing.run_id) == (2, again.run_id)


def test_row_28_a_failing_hour_is_named_while_rows_come_for_it_and_until_it_is_published(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    land(connection, 1, past(3), 10)
    for attempts in (1, 2, MOST_ATTEMPTS, MOST_ATTEMPTS + 1):
        connection.execute(
            "UPDATE ledger.failing_hour SET next_attempt = now(), attempts = %s", [attempts - 1]
        )
        (request,) = tick(dagster)
        run_of(dagster, request)
        land(connection, 1 + attempts, past(3), 10)
        assert tick(dagster) == []
        (failing,) = read_failing_hours(connection)
        assert (failing.attempts, failing.stuck) == (attempts, attempts >= MOST_ATTEMPTS)
    # A person publishes it, and more rows come before the next tick.
    publish_all(connection, past(3))
    land(connection, 99, past(3), 1)
    assert hours_of(tick(dagster)) == [past(3)]
    assert read_failing_hours(connection) == []


def test_row_28_an_hour_that_was_published_did_not_fail_though_its_run_did(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    close(connection, past(3), past(4))
    (request,) = tick(dagster)
    publish_all(connection, past(4))
    run_of(dagster, request)
    # Rows that come before the tick make it no failure.
    land(connection, 8, past(4), 5)
    assert hours_of(tick(dagster)) == [past(4)]
    assert [one.hour for one in read_failing_hours(connection)] == [past(3)]


def test_row_27_a_request_that_dagster_never_launched_is_asked_for_again_and_forgotten(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    close(connection, past(3))
    assert hours_of(tick(dagster)) == hours_of(tick(dagster)) == [past(3)]
    connection.execute("UPDATE ledger.request SET asked_at = now() - interval '2 minutes'")
    assert hours_of(tick(dagster)) == [past(3)]
    assert connection.execute("SELECT count(*) FROM ledger.request").fetchone() == (1,)
    assert read_failing_hours(connection) == []


def test_row_27_hours_that_are_stuck_failing_or_running_hide_no_other(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    stuck = [past(number) for number in range(2000, 1400, -1)]
    failing = [past(number) for number in range(1400, 1100, -1)]
    due = [past(number) for number in range(1100, 1000, -1)]
    close(connection, *stuck, *failing, *due, past(900), past(800), past(1))
    fail(connection, *stuck, attempts=MOST_ATTEMPTS)
    fail(connection, *failing, attempts=7, since=MINUTE)
    fail(connection, *due, attempts=7)
    dagster.add_run(
        dg.DagsterRun(
            job_name="hourly_usage",
            status=dg.DagsterRunStatus.STARTED,
            tags={RANGE_START_TAG: hour_key(past(850)), RANGE_END_TAG: hour_key(past(750))},
        )
    )
    asked = hours_of(tick(dagster))
    assert {past(900), past(1)} <= set(asked)
    # The others are of those that failed and are due, the oldest of them.
    assert [hour for hour in asked if hour not in (past(900), past(1))] == due[:22]


def test_row_27_hours_that_dagster_does_not_know_are_left_out_and_named(
    connection: psycopg.Connection,
    dagster: dg.DagsterInstance,
    postgres_url: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = datetime(2025, 12, 31, 22, tzinfo=UTC)
    close(connection, before, before + HOUR, past(3), past(0), past(-5))
    # No instant that Python knows.
    for strange in ("10000-01-01 00:00+00", "0044-03-15 12:00+00 BC"):
        connection.execute(
            "INSERT INTO ledger.hour (hour, closed_at, closed_by) VALUES (%s, now(), 'clock')", [strange]
        )
    for _ in range(2):
        result = evaluated(dagster)
        assert hours_of(result.run_requests or []) == [past(3)]
    assert [(one.reason, one.count) for one in read_left_out(connection)] == [
        ("before the first partition", 3),
        ("in the future", 3),
    ]
    assert (
        "hours left out, before the first partition: 0044-03-15-12:00, 2025-12-31-22:00"
        in capfd.readouterr().err
    )
    assert "2025-12-31-22:00" in shown(connection)["Hours left out"]
    found = scraped(postgres_url)
    assert found["antenna_left_out_hours{before the first partition}"] == 3
    assert found["antenna_left_out_hours{in the future}"] == 3
    # The oldest hour to publish is one that can be published.
    assert found["antenna_oldest_hour_to_publish_end_timestamp_seconds"] == (past(2)).timestamp()
    connection.execute(
        "UPDATE ledger.hour SET closed_at = NULL, closed_by = NULL WHERE hour <> %s", [past(3)]
    )
    publish_all(connection, past(3))
    assert evaluated(dagster).skip_message == "every closed hour is published"
    assert read_left_out(connection) == []


def test_row_27_a_published_hour_waits_for_more_late_rows_is_shown_and_asked_for_within_its_wait(
    connection: psycopg.Connection,
    dagster: dg.DagsterInstance,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large, small, newest = past(9), past(8), past(2)
    land(connection, 1, large, 20_000_000)
    land(connection, 2, small, 1_000)
    land(connection, 3, newest, 20_000_000)
    publish_all(connection, large, small, newest)
    assert tick(dagster) == []
    for number, hour in enumerate((large, small, newest)):
        land(connection, 4 + number, hour, 1)
    connection.execute("UPDATE ledger.batch SET committed_at = now() - interval '1 minute'")
    assert hours_of(tick(dagster)) == [small, newest]
    publish_all(connection, small, newest)
    told = str(evaluated(dagster).skip_message)
    assert f"hours with late rows, published again after a wait: {hour_key(large)} (at " in told
    assert hour_key(large) in shown(connection)["Late rows that wait"]
    found = scraped(postgres_url)
    assert found["antenna_hours_to_publish"] == found["antenna_late_hours"] == 1
    assert datetime.now(UTC).timestamp() - found["antenna_oldest_hour_to_publish_end_timestamp_seconds"] < 120
    # The wait is from the first late row on, however many come.
    land(connection, 9, large, 1)
    assert tick(dagster) == []
    monkeypatch.setenv("ANTENNA_REPUBLISH_WAIT", "0 minutes")
    assert hours_of(tick(dagster)) == [large]
    monkeypatch.delenv("ANTENNA_REPUBLISH_WAIT")
    connection.execute("UPDATE ledger.batch SET committed_at = now() - interval '15 minutes' WHERE batch = 4")
    assert hours_of(tick(dagster)) == [large]


def test_row_27_a_small_hour_is_published_again_at_once_and_then_after_a_pause(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    land(connection, 1, past(9), 1_000)
    close(connection, past(2))
    publish_all(connection, past(9), past(2))
    land(connection, 2, past(9), 1)
    connection.execute("UPDATE ledger.batch SET committed_at = now() - interval '1 minute' WHERE batch = 2")
    assert hours_of(tick(dagster)) == [past(9)]
    publish_all(connection, past(9))
    land(connection, 3, past(9), 1)
    assert tick(dagster) == []
    assert hour_key(past(9)) in shown(connection)["Late rows that wait"]
    # It is half of the hour now.
    land(connection, 4, past(9), 1_000)
    assert hours_of(tick(dagster)) == [past(9)]
    publish_all(connection, past(9))
    land(connection, 5, past(9), 1)
    assert tick(dagster) == []
    # The pause is over, and the wait for the first late row, which is a tenth of a second.
    connection.execute("UPDATE ledger.hour_generation SET sealed_at = now() - interval '5 minutes'")
    connection.execute("UPDATE ledger.batch SET committed_at = now() - interval '1 minute' WHERE batch = 5")
    assert hours_of(tick(dagster)) == [past(9)]


def test_row_27_an_hour_whose_publication_with_other_users_broke_off_does_not_wait_for_late_rows(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    land(connection, 1, past(9), 20_000_000)
    close(connection, past(2))
    publish_all(connection, past(9), past(2))
    land(connection, 2, past(9), 1)
    assert tick(dagster) == []
    record_and_certify(connection, [publication("bytes_agg_user_1h", past(9), users_version=2)])
    assert hours_of(tick(dagster)) == [past(9)]


def test_row_27_a_backlog_for_a_month_of_published_hours_hides_no_other(
    connection: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    connection.execute(
        "INSERT INTO ledger.hour (hour, rows, bytes, closed_at, closed_by, generation)"
        " SELECT hour, 20000001, 20000001, now(), 'watermark', 1"
        " FROM generate_series(%s::timestamptz, %s::timestamptz, interval '1 hour') AS hour",
        [past(800), past(61)],
    )
    connection.execute(
        "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
        " SELECT hour, 1, 1, rows - 1, bytes - 1 FROM ledger.hour"
    )
    connection.execute(
        "INSERT INTO ledger.certificate"
        " (number, hour, generation, users_version, issued_at, text, previous_sha256, sha256)"
        " SELECT row_number() OVER (ORDER BY hour), hour, 1, 1, now(), '', '', '' FROM ledger.hour"
    )
    # The gateway delivers a late row for each hour at once.
    land(connection, 2, past(900), 1)
    connection.execute(
        "INSERT INTO ledger.file (path, kind, hour, rows, bytes, size, batch)"
        " SELECT 'late/' || hour, 'landed', hour, 1, 1, 1, 2 FROM ledger.hour WHERE generation = 1"
    )
    close(connection, past(50), past(40), past(1))
    assert hours_of(tick(dagster)) == [past(900), past(50), past(40), past(1)]
