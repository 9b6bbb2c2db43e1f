"""The billing zone and users' zones: recorded in the ledger, and fixed for what is published."""

from datetime import UTC, date, datetime

import psycopg
import pytest

from antenna_assets.ledger.billing_zone import (
    BillingZoneRefused,
    record_billing_zone,
    recorded_zone,
    require_billing_zone,
)
from antenna_assets_tests.certified import KNOWN

pytestmark = pytest.mark.services

ANNA = KNOWN[0]


def publish(connection: psycopg.Connection, day: str) -> None:
    """A day as it is in the ledger once it is published."""
    connection.execute(
        "INSERT INTO ledger.period_generation"
        " (period, day, generation, first_hour, end_hour, certificates, up_to_certificate)"
        " VALUES ('day', %(day)s, 1, %(day)s::date, %(day)s::date + 1, '{}', 0)",
        {"day": day},
    )
    connection.execute(
        "INSERT INTO ledger.period_head (period, day, generation, users_version, asked_users_version)"
        " VALUES ('day', %s, 1, 1, 1)",
        [day],
    )


def test_a_new_ledger_bills_in_utc_until_another_zone_is_recorded(connection: psycopg.Connection) -> None:
    assert recorded_zone(connection) == "UTC"
    record_billing_zone(connection, "Asia/Kathmandu")
    assert recorded_zone(connection) == "Asia/Kathmandu"
    require_billing_zone(connection, "Asia/Kathmandu")


def test_a_zone_that_postgresql_does_not_know_is_refused(connection: psycopg.Connection) -> None:
    # As an expression it would take it.
    with pytest.raises(BillingZoneRefused, match="expected a time zone that PostgreSQL knows, found CEST"):
        record_billing_zone(connection, "CEST")
    assert recorded_zone(connection) == "UTC"


def test_once_a_day_is_published_the_zone_stays_and_the_refusal_says_so(
    connection: psycopg.Connection,
) -> None:
    record_billing_zone(connection, "Europe/Berlin")
    publish(connection, "2026-11-22")
    record_billing_zone(connection, "Europe/Berlin")
    with pytest.raises(BillingZoneRefused) as refused:
        record_billing_zone(connection, "UTC")
    assert str(refused.value) == (
        "ANTENNA_BILLING_ZONE: expected Europe/Berlin, in which 1 day is published up to 2026-11-22, found UTC: "
        "days in two zones would overlap or leave a gap, so set it to Europe/Berlin again"
    )
    assert recorded_zone(connection) == "Europe/Berlin"


def test_a_process_with_another_zone_is_told_which(connection: psycopg.Connection) -> None:
    with pytest.raises(BillingZoneRefused, match="expected UTC, the zone of the ledger, found Europe/Berlin"):
        require_billing_zone(connection, "Europe/Berlin")


def windows(connection: psycopg.Connection, day: str) -> dict[str, tuple[str, str]]:
    rows = connection.execute("SELECT id, begins, ends FROM ledger.user_windows(%s)", [day])
    return {
        user: (f"{begins.astimezone(UTC):%d. %H:%M}", f"{ends.astimezone(UTC):%d. %H:%M}")
        for user, begins, ends in rows
    }


def move(connection: psycopg.Connection, zone: str | None) -> None:
    connection.execute("UPDATE user_metadata SET zone = %s WHERE id = %s", [zone, ANNA])


def test_before_a_day_is_published_a_users_zone_holds_for_all_days(connection: psycopg.Connection) -> None:
    assert windows(connection, "2026-11-22") == {}
    move(connection, "Asia/Kathmandu")
    assert windows(connection, "2026-11-22") == {ANNA: ("21. 18:15", "22. 18:15")}
    move(connection, "Europe/Berlin")
    assert windows(connection, "2026-11-22") == {ANNA: ("21. 23:00", "22. 23:00")}
    move(connection, None)
    assert windows(connection, "2026-11-22") == {}


def test_a_change_of_zone_leaves_published_days_as_they_are_and_no_gap(
    connection: psycopg.Connection,
) -> None:
    move(connection, "Asia/Kathmandu")
    publish(connection, "2026-11-22")
    move(connection, "America/Havana")
    # The 23rd begins where the 22nd has ended, and ends where the 24th begins in the new zone.
    assert windows(connection, "2026-11-22") == {ANNA: ("21. 18:15", "22. 18:15")}
    assert windows(connection, "2026-11-23") == {ANNA: ("22. 18:15", "24. 05:00")}
    assert windows(connection, "2026-11-24") == {ANNA: ("24. 05:00", "25. 05:00")}
    # Back to the billing zone, whose day is the other way round.
    publish(connection, "2026-11-24")
    move(connection, None)
    assert windows(connection, "2026-11-24") == {ANNA: ("24. 05:00", "25. 05:00")}
    assert windows(connection, "2026-11-25") == {ANNA: ("25. 05:00", "26. 00:00")}
    assert windows(connection, "2026-11-26") == {}


def test_a_user_who_is_added_again_or_renamed_keeps_its_zone_or_gets_the_new_one(
    connection: psycopg.Connection,
) -> None:
    move(connection, "Asia/Kathmandu")
    connection.execute("UPDATE user_metadata SET id = 'renamed' WHERE id = %s", [ANNA])
    assert windows(connection, "2026-11-22")["renamed"] == ("21. 18:15", "22. 18:15")
    publish(connection, "2026-11-22")
    connection.execute("DELETE FROM user_metadata WHERE id = 'renamed'")
    connection.execute(
        "INSERT INTO user_metadata (id, name, email, quota) VALUES ('renamed', 'R', 'r@x.org', 1)"
    )
    assert windows(connection, "2026-11-22")["renamed"] == ("21. 18:15", "22. 18:15")
    assert windows(connection, "2026-11-23")["renamed"] == ("22. 18:15", "24. 00:00")


def test_the_hours_of_a_day_are_those_that_it_touches_in_any_zone_in_use(
    connection: psycopg.Connection,
) -> None:
    def hours() -> tuple[str, str]:
        ((first, end),) = connection.execute(
            "SELECT * FROM ledger.day_hours(%s)", [date(2026, 11, 22)]
        ).fetchall()
        return f"{first.astimezone(UTC):%d. %H:%M}", f"{end.astimezone(UTC):%d. %H:%M}"

    assert hours() == ("22. 00:00", "23. 00:00")
    move(connection, "Asia/Kathmandu")
    assert hours() == ("21. 18:00", "23. 00:00")
    connection.execute("UPDATE user_metadata SET zone = 'America/St_Johns' WHERE id = %s", [KNOWN[1]])
    assert hours() == ("21. 18:00", "23. 04:00")


def test_the_period_of_an_instant_is_that_of_the_users_zone(connection: psycopg.Connection) -> None:
    move(connection, "Asia/Kathmandu")
    at = datetime(2026, 10, 31, 18, 15, tzinfo=UTC)
    query = "SELECT ledger.period_of(%s, %s, ledger.user_zone(%s, %s))"
    found = [
        connection.execute(query, [period, at, user, date(2026, 10, 31)]).fetchall()[0][0]
        for period in ("day", "month")
        for user in (ANNA, KNOWN[1])
    ]
    assert found == [date(2026, 11, 1), date(2026, 10, 31), date(2026, 11, 1), date(2026, 10, 1)]
