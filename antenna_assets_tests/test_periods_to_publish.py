"""Which days and months are asked for, by the ledger alone; and the sensor on a real instance, tick by tick."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import psycopg
import pytest

from antenna_assets.definitions import build_definitions
from antenna_assets.defs import local_runs
from antenna_assets.defs.period_sensor import PERIOD_REQUEST_TAG, ended_periods, plan_periods
from antenna_assets.defs.requested_runs import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from antenna_assets.domain.periods import Period
from antenna_assets.ledger.failing import MOST_ATTEMPTS, forget_published_periods, read_failing_periods
from antenna_assets.ledger.periods_to_publish import (
    PeriodCandidate,
    ask_for_periods_again,
    period_candidates,
)
from antenna_assets.ledger.requests import (
    OpenPeriodRequest,
    PeriodRequest,
    open_requests,
    record_end,
    record_period_request,
)

MINUTE = timedelta(minutes=1)
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def candidate(day: str, attempts: int = 0) -> PeriodCandidate:
    return PeriodCandidate("day", date.fromisoformat(day), attempts)


def planned(*candidates: PeriodCandidate) -> list[str]:
    return [request.name for request in plan_periods("day", candidates)]


def test_days_are_asked_for_together_a_week_at_most_and_those_that_failed_alone() -> None:
    assert planned() == []
    assert planned(*(candidate(f"2026-11-{day:02}") for day in range(1, 10))) == [
        "day 2026-11-01..2026-11-07",
        "day 2026-11-08..2026-11-09",
    ]
    assert planned(candidate("2026-11-01"), candidate("2026-11-02", 1), candidate("2026-11-03")) == [
        "day 2026-11-01..2026-11-01",
        "day 2026-11-02..2026-11-02",
        "day 2026-11-03..2026-11-03",
    ]


def test_the_newest_day_is_asked_for_whatever_waits_and_failures_starve_nobody() -> None:
    many = [candidate((date(2026, 1, 1) + timedelta(days=day)).isoformat(), day % 2) for day in range(100)]
    days = [day for request in plan_periods("day", many) for day in request.days]
    assert len(days) == 14
    assert days[-1] == many[-1].day
    assert sum(day.toordinal() % 2 != many[0].day.toordinal() % 2 for day in days[:-1]) == 3


@pytest.fixture
def ledger(connection: psycopg.Connection) -> psycopg.Connection:
    """Published hours of the days from the 20th to before the 23rd, in UTC."""
    publish_hours(connection, "2026-11-20", "2026-11-23")
    return connection


def publish_hours(connection: psycopg.Connection, first: str, end: str, *, but: str | None = None) -> None:
    """Hours that are closed and certified; one of them has rows that are not."""
    values = {"first": f"{first}Z", "end": f"{end}Z", "but": but and f"{but}Z"}
    connection.execute(
        "WITH hours AS (SELECT generate_series(%(first)s::timestamptz, %(end)s::timestamptz - interval '1 hour',"
        "  '1 hour') AS hour), made AS ("
        " INSERT INTO ledger.hour (hour, rows, bytes, closed_at, closed_by, generation)"
        " SELECT hour, CASE WHEN hour = %(but)s THEN 1 ELSE 0 END, 0, hour + interval '1 hour', 'watermark', 1"
        " FROM hours RETURNING hour), sealed AS ("
        " INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
        " SELECT hour, 1, 0, 0, 0 FROM hours)"
        "SELECT count(*) FROM made",
        values,
    )
    connection.execute(
        "INSERT INTO ledger.certificate"
        " (number, hour, generation, users_version, issued_at, text, previous_sha256, sha256)"
        " SELECT (SELECT number FROM ledger.certificate_head) + row_number() OVER (ORDER BY hour), hour, 1, 1,"
        "  now(), '', '', '' FROM ledger.hour WHERE hour >= %(first)s AND hour < %(end)s",
        values,
    )
    connection.execute(
        "UPDATE ledger.certificate_head SET number = (SELECT max(number) FROM ledger.certificate)"
    )


def certify_again(connection: psycopg.Connection, hour: str) -> None:
    connection.execute(
        "INSERT INTO ledger.certificate"
        " (number, hour, generation, users_version, issued_at, text, previous_sha256, sha256)"
        " SELECT number + 1, %s, 1, 1, now(), '', '', '' FROM ledger.certificate_head",
        [f"{hour}Z"],
    )
    connection.execute("UPDATE ledger.certificate_head SET number = number + 1")


def publish_period(
    connection: psycopg.Connection, period: Period, *days: str, ago: timedelta = timedelta(0)
) -> None:
    """As if a run had published these."""
    for day in days:
        values = {"period": period, "day": day, "at": NOW - ago}
        connection.execute(
            "INSERT INTO ledger.period_generation"
            " (period, day, generation, first_hour, end_hour, certificates, up_to_certificate)"
            " SELECT %(period)s, %(day)s, 1, hours.first_hour, hours.end_hour, '{}', number"
            " FROM (SELECT number FROM ledger.certificate_head WHERE %(period)s = 'day'"
            "  UNION ALL SELECT number FROM ledger.period_certificate_head WHERE %(period)s = 'month') AS head"
            " LEFT JOIN ledger.day_hours(%(day)s) AS hours ON %(period)s = 'day'",
            values,
        )
        connection.execute(
            "INSERT INTO ledger.period_head"
            " (period, day, generation, users_version, asked_users_version, published_at)"
            " VALUES (%(period)s, %(day)s, 1, 1, 1, %(at)s)",
            values,
        )


def due(
    connection: psycopg.Connection,
    period: Period = "day",
    *,
    first: str = "2026-01-01",
    end: str = "2026-12-01",
    running: tuple[str, ...] = (),
    now: datetime = NOW,
) -> list[str]:
    found = period_candidates(
        connection,
        period,
        first=date.fromisoformat(first),
        end=date.fromisoformat(end),
        running=[date.fromisoformat(day) for day in running],
        now=now,
        wait=15 * MINUTE,
        limit=14,
    )
    return [f"{one.day}{' waits' if one.waits_until else ''}" for one in found]


pytestmark = pytest.mark.services


def test_a_day_is_due_when_its_hours_are_closed_and_published(ledger: psycopg.Connection) -> None:
    assert due(ledger) == ["2026-11-20", "2026-11-21", "2026-11-22"]
    assert due(ledger, first="2026-11-21", end="2026-11-22") == ["2026-11-21"]
    assert due(ledger, running=("2026-11-20",)) == ["2026-11-21", "2026-11-22"]
    publish_period(ledger, "day", "2026-11-20", "2026-11-21", "2026-11-22")
    assert due(ledger) == []


def test_an_hour_that_is_not_published_holds_up_its_day_alone(connection: psycopg.Connection) -> None:
    publish_hours(connection, "2026-11-20", "2026-11-23", but="2026-11-21 10:00")
    assert due(connection) == ["2026-11-20", "2026-11-22"]


def test_nothing_is_due_of_a_ledger_without_hours(connection: psycopg.Connection) -> None:
    assert due(connection) == []
    assert due(connection, "month") == []


def test_hours_that_the_ledger_does_not_have_count_as_empty(connection: psycopg.Connection) -> None:
    # An old event opened its own hour only.
    publish_hours(connection, "2026-11-18 05:00", "2026-11-18 06:00")
    publish_hours(connection, "2026-11-20 07:00", "2026-11-21")
    assert due(connection) == ["2026-11-18", "2026-11-19", "2026-11-20"]


def test_a_day_lasts_until_it_is_over_for_the_last_user(ledger: psycopg.Connection) -> None:
    ledger.execute("UPDATE user_metadata SET zone = 'America/St_Johns' WHERE name = 'fede'")
    # The ledger's first hours are of the evening of the 19th there.
    publish_period(ledger, "day", "2026-11-19")
    assert due(ledger) == ["2026-11-20", "2026-11-21"]
    publish_hours(ledger, "2026-11-23", "2026-11-23 04:00")
    assert due(ledger) == ["2026-11-20", "2026-11-21", "2026-11-22"]


def test_the_first_day_is_that_of_the_first_hour_in_the_zone_where_it_is_earliest(
    connection: psycopg.Connection,
) -> None:
    publish_hours(connection, "2026-11-20 05:00", "2026-11-21 10:00")
    assert due(connection) == ["2026-11-20"]
    connection.execute("UPDATE user_metadata SET zone = 'Pacific/Honolulu' WHERE name = 'fede'")
    assert due(connection) == ["2026-11-19", "2026-11-20"]
    # One that Dagster does not have is not asked for.
    assert due(connection, first="2026-11-20") == ["2026-11-20"]


def test_a_day_whose_hour_has_a_newer_certificate_is_due_again_after_a_wait(
    ledger: psycopg.Connection,
) -> None:
    publish_period(ledger, "day", "2026-11-20", "2026-11-21", ago=10 * MINUTE)
    certify_again(ledger, "2026-11-21 10:00")
    assert due(ledger) == ["2026-11-21 waits", "2026-11-22"]
    assert due(ledger, now=NOW + 5 * MINUTE) == ["2026-11-21", "2026-11-22"]
    # The clock was set back.
    assert due(ledger, now=NOW - 60 * MINUTE) == ["2026-11-21", "2026-11-22"]


def test_a_month_is_due_when_all_its_days_since_the_ledger_began_are_published(
    connection: psycopg.Connection,
) -> None:
    publish_hours(connection, "2026-10-29 10:00", "2026-11-02")
    publish_period(connection, "day", "2026-10-29", "2026-10-31", "2026-11-01")
    assert due(connection, "month") == []
    publish_period(connection, "day", "2026-10-30")
    assert due(connection, "month") == ["2026-10-01"]
    publish_period(connection, "month", "2026-10-01", ago=20 * MINUTE)
    assert due(connection, "month") == []
    certify_again(connection, "2026-10-30 10:00")
    # Not before the day.
    assert due(connection, "month") == []


def test_periods_whose_quota_was_changed_for_the_past_are_due_again(ledger: psycopg.Connection) -> None:
    publish_period(ledger, "day", "2026-11-20", "2026-11-21", "2026-11-22", ago=60 * MINUTE)
    ledger.execute("UPDATE user_metadata SET quota = quota + 1")
    assert due(ledger) == []
    since = datetime(2026, 11, 22, tzinfo=UTC)
    assert ask_for_periods_again(ledger, "day", since) == [date(2026, 11, 22)]
    assert due(ledger) == ["2026-11-22"]
    assert ask_for_periods_again(ledger, "month", since) == []


def test_a_day_whose_quota_was_changed_ends_where_it_ends_last(ledger: psycopg.Connection) -> None:
    """That of the 20th began in Kiritimati at 10:00 on the 19th, and ended in Pago Pago at 11:00 on the 21st."""
    ledger.execute("UPDATE ledger.billing_zone SET zone = 'Pacific/Kiritimati'")
    ledger.execute("UPDATE user_metadata SET zone = 'Pacific/Pago_Pago'")
    publish_period(ledger, "day", "2026-11-19", "2026-11-20", "2026-11-21")
    since = datetime(2026, 11, 21, 10, 59, tzinfo=UTC)
    assert ask_for_periods_again(ledger, "day", since) == [date(2026, 11, 20), date(2026, 11, 21)]
    assert ask_for_periods_again(ledger, "day", since + MINUTE) == [date(2026, 11, 21)]


def fail(connection: psycopg.Connection, period: Period, first: str, last: str, *, runs: int = 1) -> None:
    """A request of the sensor whose runs have ended, and published nothing."""
    days = [date.fromisoformat(first), date.fromisoformat(last)]
    record_period_request(connection, "a key", PeriodRequest(period, days))
    (request,) = open_requests(connection, OpenPeriodRequest)
    record_end(connection, request, runs=runs, last_run="run", ended=NOW, now=NOW + timedelta(days=1))
    connection.execute("UPDATE ledger.failing_period SET ended = %s, next_attempt = %s", [NOW, NOW + MINUTE])


def test_days_that_failed_are_asked_for_again_later_and_hide_no_others(ledger: psycopg.Connection) -> None:
    publish_period(ledger, "day", "2026-11-20")
    fail(ledger, "day", "2026-11-20", "2026-11-21")
    assert [(one.day, one.attempts) for one in read_failing_periods(ledger)] == [(date(2026, 11, 21), 1)]
    assert open_requests(ledger, OpenPeriodRequest) == []
    assert due(ledger) == ["2026-11-22"]
    assert due(ledger, now=NOW + 2 * MINUTE) == ["2026-11-21", "2026-11-22"]
    # A clock that was set back does not make them wait for ever.
    assert due(ledger, now=NOW - MINUTE) == ["2026-11-21", "2026-11-22"]
    fail(ledger, "day", "2026-11-21", "2026-11-21", runs=MOST_ATTEMPTS - 1)
    assert [one.stuck for one in read_failing_periods(ledger)] == [True]
    assert due(ledger, now=NOW + timedelta(days=30)) == ["2026-11-22"]
    publish_period(ledger, "day", "2026-11-21")
    ledger.execute(
        "INSERT INTO ledger.period_publication (period, day, generation, users_version, run_id, content)"
        " VALUES ('day', '2026-11-21', 1, 1, 'by hand', '{}')"
    )
    forget_published_periods(ledger)
    assert read_failing_periods(ledger) == []


def asked(on: dg.DagsterInstance) -> list[tuple[str | None, str]]:
    """The jobs and days that a tick asks for."""
    requests = local_runs.tick(build_definitions(), on, ended_periods)
    return [
        (one.job_name, one.partition_key or f"{one.tags[RANGE_START_TAG]} to {one.tags[RANGE_END_TAG]}")
        for one in requests
    ]


def run(
    on: dg.DagsterInstance, status: dg.DagsterRunStatus, tags: dict[str, str], job: str = "daily_usage"
) -> None:
    on.add_run(dg.DagsterRun(job_name=job, run_id=dg._core.utils.make_new_run_id(), status=status, tags=tags))


def test_a_tick_asks_for_days_and_not_for_those_in_progress(
    ledger: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    run(dagster, dg.DagsterRunStatus.STARTED, {PARTITION_TAG: "2026-11-21"})
    # Whose keys are none.
    run(dagster, dg.DagsterRunStatus.STARTING, {PARTITION_TAG: "2026-11-20-10:00"})
    assert asked(dagster) == [("daily_usage", "2026-11-20"), ("daily_usage", "2026-11-22")]
    assert len(open_requests(ledger, OpenPeriodRequest)) == 2


def test_a_request_that_was_never_launched_is_forgotten_and_one_that_failed_counts(
    ledger: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    assert asked(dagster) == [("daily_usage", "2026-11-20 to 2026-11-22")]
    (request,) = open_requests(ledger, OpenPeriodRequest)
    # Killed before Dagster had the run: the next tick asks once more, the one after a minute has forgotten it.
    ledger.execute("UPDATE ledger.period_request SET asked_at = asked_at - interval '2 minutes'")
    assert asked(dagster) == [("daily_usage", "2026-11-20 to 2026-11-22")]
    (again,) = open_requests(ledger, OpenPeriodRequest)
    assert again.key != request.key
    run(dagster, dg.DagsterRunStatus.FAILURE, {PERIOD_REQUEST_TAG: again.key})
    assert asked(dagster) == []
    assert [one.attempts for one in read_failing_periods(ledger)] == [1, 1, 1]
