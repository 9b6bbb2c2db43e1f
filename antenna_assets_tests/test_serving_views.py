"""The views that dashboards and reports read: literal tables in, literal rows out, on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from antenna_assets.domain.hours import HOUR
from antenna_assets_tests.serving_rows import FEDE, JUAN, certify, hour, insert, publish

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
ELEVEN, TWELVE = TEN + HOUR, TEN + 2 * HOUR
MINUTES = timedelta(minutes=5)


def select(connection: psycopg.Connection, query: str) -> list[tuple]:
    return connection.execute(query.encode()).fetchall()


LIVE = {
    "usage_by_antenna": ("bytes_agg_antenna", "bytes_agg_antenna_1h", "antenna_id"),
    "usage_by_app": ("bytes_agg_app", "bytes_agg_app_1h", "app"),
}


@pytest.mark.parametrize("view", LIVE)
def test_an_hour_is_its_truth_once_published_and_its_live_sums_before(
    connection: psycopg.Connection, view: str
) -> None:
    live, hourly, key = LIVE[view]
    hour(connection, TEN, 50)
    hour(connection, ELEVEN, landed=70)
    hour(connection, TWELVE, closed=False, landed=10)
    publish(connection, hourly, TEN, 1, ("a", 50))
    insert(connection, live, (TEN, "a", 40), (TEN + MINUTES, "a", 20), (TEN, "late", 5))
    insert(connection, live, (ELEVEN, "a", 30), (ELEVEN + 11 * MINUTES, "a", 30), (ELEVEN, "b", 10))
    insert(connection, live, (TWELVE, "a", 10))
    query = sql.SQL("SELECT hour, {}, bytes, source FROM {} ORDER BY 1, 2")
    assert connection.execute(query.format(sql.Identifier(key), sql.Identifier(view))).fetchall() == [
        (TEN, "a", 50, "hourly"),
        (ELEVEN, "a", 60, "live"),
        (ELEVEN, "b", 10, "live"),
        (TWELVE, "a", 10, "live"),
    ]


def test_a_user_is_shown_by_id_and_name_and_an_unknown_one_by_id(connection: psycopg.Connection) -> None:
    hour(connection, TEN, 50)
    hour(connection, ELEVEN, closed=False, landed=3)
    publish(connection, "bytes_agg_user_1h", TEN, 1, (FEDE, "fede@gmail.com", 40), ("nobody", None, 10))
    insert(connection, "bytes_agg_user", (TEN, FEDE, 1), (ELEVEN, JUAN, 3))
    assert select(connection, "SELECT * FROM usage_by_user ORDER BY 1, 2") == [
        (TEN, FEDE, "fede", 40, "hourly"),
        (TEN, "nobody", None, 10, "hourly"),
        (ELEVEN, JUAN, "juan", 3, "live"),
    ]


def test_an_hour_published_without_rows_shows_none_of_its_live_sums(connection: psycopg.Connection) -> None:
    hour(connection, TEN, 0)
    publish(connection, "bytes_agg_app_1h", TEN, 1)
    insert(connection, "bytes_agg_app", (TEN, "web", 40))
    assert select(connection, "SELECT * FROM usage_by_app") == []


def test_the_top_talkers_are_ten_of_each_kind_and_hour_with_their_share(
    connection: psycopg.Connection,
) -> None:
    hour(connection, TEN, 120)
    hour(connection, ELEVEN, closed=False, landed=8)
    publish(connection, "bytes_agg_antenna_1h", TEN, 1, *((f"a{number:02}", 10) for number in range(12)))
    publish(
        connection, "bytes_agg_user_1h", TEN, 1, (FEDE, "fede@gmail.com", 30), (JUAN, "juan@gmail.com", 90)
    )
    insert(connection, "bytes_agg_antenna", (ELEVEN, "a00", 8))
    antennas = select(
        connection,
        "SELECT key, rank, source FROM top_talkers WHERE kind = 'antenna' AND hour = '2026-11-22 10:00Z'",
    )
    assert antennas == [(f"a{number:02}", number + 1, "hourly") for number in range(10)]
    users = "SELECT key, name, bytes, share, rank FROM top_talkers WHERE kind = 'user' ORDER BY rank"
    assert select(connection, users) == [(JUAN, "juan", 90, 0.75, 1), (FEDE, "fede", 30, 0.25, 2)]
    live = "SELECT key, bytes, share, rank, source FROM top_talkers WHERE hour = '2026-11-22 11:00Z'"
    assert select(connection, live) == [("a00", 8, 1.0, 1, "live")]


def test_usage_against_quota_has_the_quota_of_its_publication_where_it_was_exceeded(
    connection: psycopg.Connection,
) -> None:
    hour(connection, TEN, 60_000)
    used = [(FEDE, "fede@gmail.com", 6_000), (JUAN, "juan@gmail.com", 50_000), ("nobody", None, 4_000)]
    publish(connection, "bytes_agg_user_1h", TEN, 1, *used)
    publish(connection, "users_over_quota_1h", TEN, 1, (FEDE, "fede@gmail.com", 5_000, 6_000))
    connection.execute("UPDATE user_metadata SET quota = 200000 WHERE name IN ('fede', 'juan')")
    assert select(
        connection,
        "SELECT name, bytes, quota, percent, remaining, over_quota FROM usage_against_quota ORDER BY 1",
    ) == [("fede", 6_000, 5_000, 120.0, -1_000, True), ("juan", 50_000, 200_000, 25.0, 150_000, False)]
    history = "SELECT hour, id, name, bytes, quota, percent, excess FROM over_quota_history"
    assert select(connection, history) == [(TEN, FEDE, "fede", 6_000, 5_000, 120.0, 1_000)]


def test_usage_against_quota_has_the_plans_quota_of_who_has_none_of_its_own(
    connection: psycopg.Connection,
) -> None:
    hour(connection, TEN, 60_000)
    publish(connection, "bytes_agg_user_1h", TEN, 1, (FEDE, "f", 2_000), (JUAN, "j", 2_000))
    publish(connection, "users_over_quota_1h", TEN, 1)
    connection.execute("INSERT INTO plan VALUES ('gold')")
    connection.execute("INSERT INTO plan_quota_change (plan, period, quota) VALUES ('gold', 'hour', 8000)")
    connection.execute("UPDATE user_metadata SET plan = 'gold', quota = NULL WHERE id = %s", [FEDE])
    # Unlimited first, and so in the plan, too.
    connection.execute("UPDATE user_metadata SET quota = NULL WHERE id = %s", [JUAN])
    connection.execute("UPDATE user_metadata SET plan = 'gold' WHERE id = %s", [JUAN])
    shown = "SELECT id, quota, percent, remaining, over_quota FROM usage_against_quota ORDER BY id"
    assert select(connection, shown) == [
        (JUAN, None, None, None, False),
        (FEDE, 8_000, 25.0, 6_000, False),
    ]


def test_two_tables_are_side_by_side_only_where_both_hold_one_generation(
    connection: psycopg.Connection,
) -> None:
    hour(connection, TEN, 60_000, 70_000)
    publish(connection, "bytes_agg_user_1h", TEN, 2, (FEDE, "fede@gmail.com", 7_000))
    publish(connection, "users_over_quota_1h", TEN, 1, (FEDE, "fede@gmail.com", 5_000, 6_000))
    assert select(connection, "SELECT * FROM usage_against_quota") == []
    publish(connection, "users_over_quota_1h", TEN, 2)
    assert select(connection, "SELECT name, bytes FROM usage_against_quota") == [("fede", 7_000)]


def test_a_quota_of_nothing_has_no_percentage(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE user_metadata SET quota = 0 WHERE name = 'fede'")
    hour(connection, TEN, 10)
    publish(connection, "bytes_agg_user_1h", TEN, 1, (FEDE, "fede@gmail.com", 10))
    publish(connection, "users_over_quota_1h", TEN, 1, (FEDE, "fede@gmail.com", 0, 10))
    assert select(connection, "SELECT percent, remaining, over_quota FROM usage_against_quota") == [
        (None, -10, True)
    ]
    assert select(connection, "SELECT percent FROM over_quota_history") == [(None,)]


def test_an_hour_is_compared_with_the_day_and_the_week_before_whatever_the_zone(
    connection: psycopg.Connection,
) -> None:
    # Between the two Sundays clocks change in New York: a day of the session's zone is not 24 hours there.
    start = datetime(2026, 11, 1, 12, tzinfo=UTC)
    for days, bytes_ in ((7, 200), (1, 400), (0, 300)):
        hour(connection, start - timedelta(days=days), bytes_)
        publish(connection, "bytes_agg_antenna_1h", start - timedelta(days=days), 1)
    connection.execute("SET TimeZone = 'America/New_York'")
    assert select(
        connection,
        "SELECT bytes, day_before, week_before, day_change_percent, week_change_percent FROM usage_compared"
        " ORDER BY hour DESC",
    ) == [(300, 400, 200, -25.0, 50.0), (400, None, None, None, None), (200, None, None, None, None)]


def test_trust_tells_of_each_hour_how_far_it_is(connection: psycopg.Connection) -> None:
    hour(connection, TEN, 100, 120)
    hour(connection, ELEVEN, 100, landed=130)
    hour(connection, TWELVE, landed=50)
    hour(connection, TWELVE + HOUR, landed=10, closed=False)
    certify(connection, TEN, 1, 1, ELEVEN + MINUTES)
    certify(connection, TEN, 2, 2, ELEVEN + 3 * HOUR)
    certify(connection, ELEVEN, 3, 1, TWELVE + 2 * MINUTES)
    for number, (at, quarantined) in enumerate([(TEN, 3), (TEN + 11 * MINUTES, 4), (ELEVEN, 5)], start=1):
        connection.execute(
            "INSERT INTO ledger.batch (batch, kind, committed_at, clock, rows, bytes, quarantined, late_rows)"
            " VALUES (%(number)s, 'stream', %(at)s, %(at)s, 0, 0, %(quarantined)s, 0)",
            {"number": number, "at": at, "quarantined": quarantined},
        )
        connection.execute("INSERT INTO ledger.rejection VALUES (%s, 'not_json', %s)", [number, quarantined])
    assert select(
        connection,
        "SELECT state, generation, certificate, rows, waiting_bytes, late_rows, quarantined FROM hour_trust ORDER BY hour",
    ) == [
        ("published", 2, 2, 12, 0, 2, 7),
        ("late rows", 1, 3, 13, 30, 3, 5),
        ("closed", None, None, 5, 50, 0, 0),
        ("open", None, None, 1, 10, 0, 0),
    ]
    delays = select(connection, "SELECT delay FROM hour_trust WHERE certificate IS NOT NULL ORDER BY hour")
    assert delays == [(MINUTES,), (2 * MINUTES,)]
    assert select(connection, "SELECT * FROM quarantine_by_hour ORDER BY 1") == [
        (TEN, "not_json", 7),
        (ELEVEN, "not_json", 5),
    ]


def test_an_hour_that_is_not_over_has_no_delay(connection: psycopg.Connection) -> None:
    hour(connection, datetime.now(UTC).replace(minute=0, second=0, microsecond=0), landed=10, closed=False)
    assert select(connection, "SELECT delay FROM hour_trust") == [(timedelta(0),)]


def test_no_view_of_the_dashboards_shows_an_e_mail(connection: psycopg.Connection) -> None:
    shown = select(
        connection,
        "SELECT table_name FROM information_schema.columns JOIN information_schema.views USING (table_schema, table_name)"
        " WHERE column_name = 'email'",
    )
    # The other layout's own, which the dashboards' role is not granted.
    assert shown == [("user_quota_limit",)]
