"""That hours come in time and have their usual volume, on literal ledgers."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from antenna_assets.domain.hours import HOUR
from antenna_assets.verify.claims.history import hours_are_fresh, volume_is_usual

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
WEEK = timedelta(days=7)


def hour(
    connection: psycopg.Connection,
    when: datetime,
    *,
    bytes_: int = 0,
    closed: bool = True,
    certified: bool = True,
) -> None:
    connection.execute(
        "INSERT INTO ledger.hour (hour, rows, bytes, closed_at, closed_by, generation) VALUES (%s, 1, %s, %s, %s, %s)",
        [when, bytes_, when if closed else None, "watermark" if closed else None, int(closed)],
    )
    if closed:
        connection.execute(
            "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes) VALUES (%s, 1, 1, 1, 1)",
            [when],
        )
    if closed and certified:
        connection.execute(
            "INSERT INTO ledger.certificate SELECT coalesce(max(number), 0) + 1, %s, 1, 1, now(), '', '', ''"
            " FROM ledger.certificate",
            [when],
        )


def test_an_hour_is_due_half_an_hour_after_its_end(connection: psycopg.Connection) -> None:
    hour(connection, TEN)
    assert hours_are_fresh(connection, TEN + timedelta(minutes=149)).passed
    late = hours_are_fresh(connection, TEN + timedelta(minutes=150))
    assert (late.passed, late.metrics["hours_behind"]) == (False, 1)
    assert "2026-11-22-11:00 is due: the newest closed hour is 2026-11-22-10:00" in late.message


def test_a_closed_hour_without_its_certificate_is_not_fresh_however_new_the_others_are(
    connection: psycopg.Connection,
) -> None:
    hour(connection, TEN, certified=False)
    hour(connection, TEN + HOUR)
    found = hours_are_fresh(connection, TEN + 2.5 * HOUR)
    assert (found.passed, found.metrics["unpublished_hours"]) == (False, 1)
    assert "the oldest unfinished one is 2026-11-22-10:00" in found.message


def test_an_open_hour_that_is_due_is_not_fresh_and_one_that_goes_on_does_not_matter(
    connection: psycopg.Connection,
) -> None:
    hour(connection, TEN)
    hour(connection, TEN + HOUR, closed=False)
    assert hours_are_fresh(connection, TEN + 2 * HOUR).passed
    found = hours_are_fresh(connection, TEN + 2.5 * HOUR)
    assert (found.passed, found.metrics["open_hours"]) == (False, 1)


def test_a_ledger_without_hours_is_fresh(connection: psycopg.Connection) -> None:
    assert hours_are_fresh(connection, TEN).passed


@pytest.mark.parametrize(
    ("bytes_", "usual"), [(49, False), (50, True), (100, True), (200, True), (201, False), (0, False)]
)
def test_the_usual_volume_is_half_to_twice_the_median_of_earlier_weeks(
    connection: psycopg.Connection, bytes_: int, usual: bool
) -> None:
    hour(connection, TEN, bytes_=bytes_)
    for week, amount in ((1, 100), (2, 90), (3, 5000), (5, 1)):
        hour(connection, TEN - week * WEEK, bytes_=amount)
    found = volume_is_usual(connection, [TEN])[TEN]
    assert (found.passed, found.metrics["usual_bytes"]) == (usual, 100)


def test_one_earlier_week_is_too_few_to_compare(connection: psycopg.Connection) -> None:
    hour(connection, TEN, bytes_=1)
    hour(connection, TEN - WEEK, bytes_=100)
    found = volume_is_usual(connection, [TEN])[TEN]
    assert (found.passed, found.metrics["compared"]) == (True, 0)


def test_hours_that_are_usually_quiet_may_be_quiet(connection: psycopg.Connection) -> None:
    for week in (0, 1, 2):
        hour(connection, TEN - week * WEEK, bytes_=0)
    assert volume_is_usual(connection, [TEN])[TEN].passed
    connection.execute("UPDATE ledger.hour SET bytes = 7 WHERE hour = %s", [TEN])
    assert not volume_is_usual(connection, [TEN])[TEN].passed
