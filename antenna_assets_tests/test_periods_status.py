"""What `antenna status` and a scrape tell of days and months, of a literal ledger."""

from datetime import UTC, datetime
from io import StringIO

import psycopg
import pytest
from rich.console import Console

from antenna_assets.ledger.failing import MOST_ATTEMPTS
from antenna_assets.operations.periods import period_metrics, period_tables

pytestmark = pytest.mark.services


@pytest.fixture
def ledger(connection: psycopg.Connection) -> psycopg.Connection:
    """Two days are published, of which one has an hour that was published since; a day and a month fail."""
    connection.execute(
        "INSERT INTO ledger.period_generation (period, day, generation, first_hour, end_hour, certificates, up_to_certificate)"
        " SELECT 'day', day, 1, day AT TIME ZONE 'UTC', (day + interval '1 day') AT TIME ZONE 'UTC', '{}', 0"
        " FROM (VALUES (date '2026-11-20'), ('2026-11-21')) AS days (day)"
    )
    connection.execute(
        "INSERT INTO ledger.period_head SELECT period, day, 1, 1, 1 FROM ledger.period_generation"
    )
    connection.execute("UPDATE ledger.period_head SET asked_users_version = 2 WHERE day = '2026-11-20'")
    connection.execute(
        "INSERT INTO ledger.failing_period (period, day, publication, attempts, run_id, ended, next_attempt) VALUES"
        " ('day', '2026-11-22', 0, 1, 'abcdefghij', '2026-11-23 12:00Z', '2026-11-23 12:05Z'),"
        " ('month', '2026-10-01', 0, %s, 'klmnopqrst', '2026-11-02 12:00Z', '2026-11-02 13:00Z')",
        [MOST_ATTEMPTS],
    )
    return connection


def shown(connection: psycopg.Connection) -> str:
    console = Console(width=100, file=StringIO(), emoji=False)
    for table in period_tables(connection):
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_status_shows_days_and_months_and_which_are_stuck(ledger: psycopg.Connection) -> None:
    lines = [" ".join(line.split()) for line in shown(ledger).splitlines()]
    assert "day 2 1 2026-11-21" in lines
    assert "day 2026-11-22 1 abcdefgh 2026-11-23 12:00:00 UTC 2026-11-23 12:05:00 UTC" in lines
    assert f"month 2026-10-01 {MOST_ATTEMPTS} klmnopqr 2026-11-02 12:00:00 UTC stuck" in lines


def test_a_scrape_counts_days_due_again_and_those_that_are_stuck(ledger: psycopg.Connection) -> None:
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in period_metrics(ledger)
        for sample in metric.samples
    }
    assert samples == {
        ("antenna_periods_due_again", "day"): 1,
        ("antenna_newest_period_end_timestamp_seconds", "day"): datetime(
            2026, 11, 22, tzinfo=UTC
        ).timestamp(),
        ("antenna_failing_periods", "no"): 1,
        ("antenna_failing_periods", "yes"): 1,
    }


def test_a_published_month_ends_where_its_last_published_day_does(ledger: psycopg.Connection) -> None:
    ledger.execute(
        "INSERT INTO ledger.period_generation (period, day, generation, certificates, up_to_certificate)"
        " VALUES ('month', '2026-11-01', 1, '{}', 0), ('month', '2026-10-01', 1, '{}', 0)"
    )
    ledger.execute("INSERT INTO ledger.period_head VALUES ('month', '2026-10-01', 1, 1, 1)")
    assert ends(ledger) == {"day": datetime(2026, 11, 22, tzinfo=UTC)}
    ledger.execute("INSERT INTO ledger.period_head VALUES ('month', '2026-11-01', 1, 1, 1)")
    assert ends(ledger) == dict.fromkeys(("day", "month"), datetime(2026, 11, 22, tzinfo=UTC))
    assert "month 2 0 2026-11-01" in [" ".join(line.split()) for line in shown(ledger).splitlines()]


def ends(connection: psycopg.Connection) -> dict[str, datetime]:
    """The newest published period's end, by kind, as a scrape has it."""
    return {
        sample.labels["period"]: datetime.fromtimestamp(sample.value, UTC)
        for metric in period_metrics(connection)
        for sample in metric.samples
        if sample.name == "antenna_newest_period_end_timestamp_seconds"
    }


def test_without_a_day_status_says_nothing_of_days(connection: psycopg.Connection) -> None:
    assert shown(connection) == ""
