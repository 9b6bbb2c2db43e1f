"""`allowance` on a real PostgreSQL: every answer, at the boundary of each quota and period."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from psycopg.rows import dict_row

from antenna_assets.ledger.head import claim_topic
from antenna_assets.ledger.live_tables import note_live_tables
from antenna_assets_tests.serving_rows import certify, hour, insert, publish

pytestmark = pytest.mark.services

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOW = NOON + timedelta(minutes=20)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def ledger(connection: psycopg.Connection) -> psycopg.Connection:
    """A user `ann` with 1,000 bytes an hour, and a stream that has read everything."""
    claim_topic(connection, "devices", "id")
    connection.execute("UPDATE ledger.head SET read_past = %s", [NOW - timedelta(seconds=2)])
    connection.execute("INSERT INTO user_metadata VALUES ('ann', 'Ann', 'ann@example.com', 1000)")
    return connection


def ask(
    connection: psycopg.Connection, user: str = "ann", bytes_: int | None = 1, period: str = "hour", now=NOW
):
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT * FROM ledger.allowance_at(%s, %s, %s, interval '1 minute', %s)",
            [user, bytes_, period, now],
        ).fetchall()[0]


def live(connection: psycopg.Connection, *rows: tuple[datetime, int], user: str = "ann") -> None:
    insert(connection, "bytes_agg_user", *((start, user, bytes_) for start, bytes_ in rows))


def quota(connection: psycopg.Connection, period: str, bytes_: int | None, user: str = "ann") -> None:
    connection.execute(
        "INSERT INTO user_quota_change (id, period, valid_from, quota) VALUES (%s, %s, '-infinity', %s)",
        [user, period, bytes_],
    )


def zone(connection: psycopg.Connection, name: str, user: str = "ann") -> None:
    connection.execute("UPDATE user_metadata SET zone = %s WHERE id = %s", [name, user])


def test_an_answer_says_what_it_is_made_of(ledger: psycopg.Connection) -> None:
    live(ledger, (NOON, 300), (NOON + 15 * MINUTE, 100), (NOON - 5 * MINUTE, 5_000))
    assert ask(ledger, bytes_=600) == {
        "user": "ann",
        "period": "hour",
        "answer": "allowed",
        "allowed": True,
        "quota": 1000,
        "used": 400,
        "remaining": 600,
        "requested": 600,
        "starts": NOON,
        "ends": NOON + HOUR,
        "as_of": NOW - timedelta(seconds=2),
        "lag_seconds": 2.0,
        "exact": True,
        "source": "live",
        "published": 0,
        "live": 400,
        "generation": None,
        "certificate": None,
    }


@pytest.mark.parametrize(
    ("used", "requested", "allowed"),
    [
        (0, 0, True),
        (0, 1000, True),
        (0, 1001, False),
        (999, 1, True),
        (1000, 0, True),
        (1000, 1, False),
        (1001, 0, False),
    ],
)
def test_exactly_the_quota_is_allowed_and_one_byte_more_is_not(
    ledger: psycopg.Connection, used: int, requested: int, allowed: bool
) -> None:
    live(ledger, (NOON, used))
    found = ask(ledger, bytes_=requested)
    assert (found["allowed"], found["answer"]) == (allowed, "allowed" if allowed else "over quota")
    assert found["remaining"] == max(1000 - used, 0)


def test_a_quota_of_zero_allows_nothing(ledger: psycopg.Connection) -> None:
    ledger.execute("INSERT INTO user_metadata VALUES ('bob', 'Bob', 'bob@example.com', 0)")
    assert [ask(ledger, "bob", bytes_)["allowed"] for bytes_ in (0, 1)] == [True, False]


def test_unlimited_is_a_yes_and_no_quota_and_an_unknown_user_are_neither_yes_nor_no(
    ledger: psycopg.Connection,
) -> None:
    ledger.execute("INSERT INTO user_metadata VALUES ('bob', 'Bob', 'bob@example.com', NULL)")
    live(ledger, (NOON, 7), user="eve")
    found = [ask(ledger, "bob"), ask(ledger, period="day"), ask(ledger, "eve")]
    assert [(one["answer"], one["allowed"], one["quota"], one["remaining"]) for one in found] == [
        ("unlimited", True, None, None),
        ("no quota", None, None, None),
        ("unknown user", None, None, None),
    ]
    assert found[2]["used"] == 7


def test_a_plans_quota_counts_for_its_users_and_their_own_wins(ledger: psycopg.Connection) -> None:
    ledger.execute("INSERT INTO plan VALUES ('small')")
    ledger.execute("INSERT INTO plan_quota_change VALUES ('small', 'day', '-infinity', 500)")
    ledger.execute("INSERT INTO user_metadata VALUES ('bob', 'Bob', 'bob@example.com', NULL, 'small')")
    assert ask(ledger, "bob", period="day")["quota"] == 500
    quota(ledger, "day", 700, user="bob")
    assert ask(ledger, "bob", period="day")["quota"] == 700


@pytest.mark.parametrize(
    "change",
    [
        "read_past = NULL",
        f"read_past = '{NOW - 61 * timedelta(seconds=1)}'",
        "waiting_for = 'Kafka', waiting_since = now()",
    ],
)
def test_a_yes_of_a_stream_that_waits_or_lags_is_stale_and_a_no_stays_a_no(
    ledger: psycopg.Connection, change: str
) -> None:
    live(ledger, (NOON, 400))
    ledger.execute(f"UPDATE ledger.head SET {change}".encode())  # noqa: S608
    within, beyond = ask(ledger, bytes_=600), ask(ledger, bytes_=601)
    assert [(one["answer"], one["allowed"], one["exact"]) for one in (within, beyond)] == [
        ("stale", None, False),
        ("over quota", False, False),
    ]


def test_without_a_stream_everything_is_stale(connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO user_metadata VALUES ('ann', 'Ann', 'ann@example.com', 1000)")
    found = ask(connection)
    assert (found["answer"], found["as_of"], found["lag_seconds"]) == ("stale", None, None)


def test_a_day_is_its_published_hours_and_the_live_sums_of_the_others(ledger: psycopg.Connection) -> None:
    quota(ledger, "day", 10_000)
    midnight = NOON - 12 * HOUR
    for number in range(-1, 11):
        start = midnight + number * HOUR
        hour(ledger, start, 100)
        publish(ledger, "bytes_agg_user_1h", start, 1, ("ann", "ann@example.com", 100), ("bob", None, 7))
        # The live sums of a published hour are not counted as well.
        live(ledger, (start, 100))
    certify(ledger, midnight + 10 * HOUR, 8, 1, NOW)
    hour(ledger, midnight + 11 * HOUR, landed=50)
    hour(ledger, NOON, landed=30, closed=False)
    live(ledger, (midnight + 11 * HOUR, 50), (NOON, 30))
    found = ask(ledger, period="day")
    assert (found["starts"], found["ends"]) == (midnight, midnight + 24 * HOUR)
    assert (found["published"], found["live"], found["used"]) == (1100, 80, 1180)
    assert (found["source"], found["exact"]) == ("published and live", True)
    assert (found["generation"], found["certificate"]) == (1, 8)


def test_late_rows_of_a_published_hour_count_at_once(ledger: psycopg.Connection) -> None:
    quota(ledger, "day", 10_000)
    start = NOON - 2 * HOUR
    hour(ledger, start, 100, landed=140)
    publish(ledger, "bytes_agg_user_1h", start, 1, ("ann", "ann@example.com", 100))
    live(ledger, (start, 100), (start + 5 * MINUTE, 40))
    found = ask(ledger, period="day")
    assert (found["published"], found["live"]) == (0, 140)


def test_a_day_that_begins_within_an_hour_takes_that_hours_windows_from_its_beginning_on(
    ledger: psycopg.Connection,
) -> None:
    quota(ledger, "day", 10_000)
    zone(ledger, "Asia/Kathmandu")
    # Midnight in Kathmandu is 18:15 in UTC.
    six = NOON - 18 * HOUR
    hour(ledger, six, 111)
    publish(ledger, "bytes_agg_user_1h", six, 1, ("ann", "ann@example.com", 111))
    live(ledger, (six + 10 * MINUTE, 100), (six + 15 * MINUTE, 10), (six + 55 * MINUTE, 1))
    found = ask(ledger, period="day")
    assert (found["starts"], found["ends"]) == (six + 15 * MINUTE, six + 24 * HOUR + 15 * MINUTE)
    assert (found["used"], found["exact"]) == (11, True)
    # With windows of an hour it cannot be said which of the 100 bytes of 18:00 came after 18:15.
    ledger.execute("INSERT INTO ledger.live_window VALUES ('bytes_agg_user', '1 hour')")
    found = ask(ledger, period="day")
    assert (found["used"], found["exact"]) == (11, False)


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
def test_a_day_has_23_or_25_hours_where_clocks_change(
    ledger: psycopg.Connection, day: date, hours: int
) -> None:
    zone(ledger, "Europe/Berlin")
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    found = ask(ledger, period="day", now=noon)
    assert (found["ends"] - found["starts"]) / HOUR == hours


def test_a_month_is_its_published_days_and_then_hours(ledger: psycopg.Connection) -> None:
    quota(ledger, "month", 100_000)
    first = datetime(2026, 11, 1, tzinfo=UTC)
    for number in range(20):
        publish_day(ledger, first + number * timedelta(days=1), 1000)
    for number in range(2):
        start = first + timedelta(days=20, hours=number)
        hour(ledger, start, 100)
        publish(ledger, "bytes_agg_user_1h", start, 1, ("ann", "ann@example.com", 100))
    live(ledger, (first + timedelta(days=20, hours=2), 30), (NOON, 4))
    found = ask(ledger, period="month")
    assert (found["starts"], found["ends"]) == (first, datetime(2026, 12, 1, tzinfo=UTC))
    assert (found["published"], found["live"], found["exact"]) == (20_200, 34, True)


def test_hours_from_before_the_ledgers_first_one_are_empty(ledger: psycopg.Connection) -> None:
    quota(ledger, "month", 100_000)
    start = NOON - 3 * HOUR
    hour(ledger, start, 100)
    publish(ledger, "bytes_agg_user_1h", start, 1, ("ann", "ann@example.com", 100))
    live(ledger, (NOON, 4))
    # An event of a month ago opened its own hour only.
    for first in (start, start - timedelta(days=30)):
        if first != start:
            hour(ledger, first, 0)
        found = ask(ledger, period="month")
        assert (found["published"], found["live"], found["exact"]) == (100, 4, True)


def usage(
    connection: psycopg.Connection, period: str, within: datetime, now: datetime = NOW
) -> tuple[object, ...]:
    """Published and live bytes of `ann`, whether they are all, and where they come from."""
    rows = connection.execute(
        "SELECT published::int, live::int, exact, source FROM ledger.period_usage_at('ann', %s, %s, %s)",
        [period, within, now],
    )
    return rows.fetchall()[0]


def test_a_past_month_has_its_own_days_alone(ledger: psycopg.Connection) -> None:
    first = datetime(2026, 9, 1, tzinfo=UTC)
    for number in range(-1, 40):
        publish_day(ledger, first + number * timedelta(days=1), 1)
    assert usage(ledger, "month", first + timedelta(days=5)) == (30, 0, True, "published")


def test_a_past_day_is_its_published_sum_whatever_became_of_its_hours(ledger: psycopg.Connection) -> None:
    zone(ledger, "Asia/Kathmandu")
    start = datetime(2026, 9, 1, 18, 15, tzinfo=UTC)
    publish_day(ledger, start, 42, date(2026, 9, 2))
    assert usage(ledger, "day", start + HOUR) == (42, 0, True, "published")
    # The next one is not published, its hours are long gone from the live sums.
    assert usage(ledger, "day", start + 25 * HOUR) == (0, 0, False, "live")


def test_the_public_function_says_which_part_is_which(ledger: psycopg.Connection) -> None:
    (found,) = ledger.execute(
        "SELECT period, used, published, live, source FROM period_usage('ann', 'month')"
    )
    assert found == ("month", 0, 0, 0, "live")


def publish_day(
    connection: psycopg.Connection, start: datetime, bytes_: int, day: date | None = None
) -> None:
    day = day or start.date()
    connection.execute("SELECT ledger.make_user_months(%s)", [[day]])
    connection.execute(
        "INSERT INTO ledger.period_generation (period, day, generation, first_hour, end_hour, certificates, up_to_certificate)"
        " VALUES ('day', %s, 1, %s, %s, '{}', 0)",
        [day, start, start + timedelta(days=1)],
    )
    connection.execute("INSERT INTO ledger.period_head VALUES ('day', %s, 1, 1, 1)", [day])
    connection.execute(
        "INSERT INTO bytes_agg_user_1d VALUES (%s, 'ann', %s, 'ann@example.com', %s)", [day, start, bytes_]
    )


def test_what_is_kept_nowhere_makes_an_answer_inexact(ledger: psycopg.Connection) -> None:
    quota(ledger, "day", 10_000)
    ledger.execute("INSERT INTO ledger.live_table VALUES ('bytes_agg_user', false, %s)", [NOON])
    assert ask(ledger)["exact"] is True
    found = ask(ledger, period="day")
    assert (found["exact"], found["answer"], found["allowed"]) == (False, "incomplete", None)
    over = ask(ledger, period="day", bytes_=10_001)
    assert (over["exact"], over["answer"], over["allowed"]) == (False, "over quota", False)
    ledger.execute("UPDATE ledger.live_table SET left_out = true")
    found = ask(ledger)
    assert (found["exact"], found["answer"], found["allowed"]) == (False, "incomplete", None)
    assert ask(ledger, now=NOW + 5 * MINUTE)["answer"] == "stale"


def test_windows_of_every_length_that_was_used_are_found(ledger: psycopg.Connection) -> None:
    note_live_tables(ledger, {"bytes_agg_user": 2 * MINUTE})
    live(ledger, (NOON, 1), (NOON + 2 * MINUTE, 10), (NOON + 5 * MINUTE, 100))
    assert ask(ledger)["used"] == 111


def test_sums_beyond_64_bits_are_compared(ledger: psycopg.Connection) -> None:
    quota(ledger, "day", 2**63 - 1)
    live(ledger, (NOON, 2**62), (NOON + 5 * MINUTE, 2**62), (NOON - HOUR, 2**62))
    found = ask(ledger, period="day")
    assert (found["used"], found["allowed"]) == (Decimal(3 * 2**62), False)


@pytest.mark.parametrize(
    ("bytes_", "period", "message"),
    [
        (-1, "hour", "expected a number of bytes from 0 on, found -1"),
        (None, "hour", "expected a number of bytes from 0 on, found null"),
        (1, "week", "expected the period hour, day or month, found 'week'"),
    ],
)
def test_a_wrong_question_is_refused(
    ledger: psycopg.Connection, bytes_: int | None, period: str, message: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        ask(ledger, bytes_=bytes_, period=period)


def test_the_public_function_asks_about_now(ledger: psycopg.Connection) -> None:
    found = ledger.execute("SELECT answer, starts <= now(), ends > now() FROM allowance('ann')").fetchall()
    assert found == [("stale", True, True)]
    (spelled,) = ledger.execute("SELECT answer FROM allowance(id => 'ann', bytes => 2000, period => 'hour')")
    assert spelled == ("over quota",)


def test_published_days_count_as_days_and_what_lies_between_them_by_hours(ledger: psycopg.Connection) -> None:
    quota(ledger, "month", 10_000)
    month = NOON.replace(day=1, hour=0)
    for number, bytes_ in ((0, 1), (1, 10), (3, 1_000)):
        publish_day(ledger, month + timedelta(days=number), bytes_)
    live(ledger, (month + timedelta(days=2, hours=5), 100))
    found = ask(ledger, period="month")
    assert (found["published"], found["live"], found["source"]) == (1_011, 100, "published and live")


def test_a_question_looks_hours_up_and_reads_no_others(ledger: psycopg.Connection) -> None:
    ledger.execute(
        "INSERT INTO ledger.hour (hour, rows, bytes, closed_at, closed_by)"
        " SELECT hour, 1, 1, hour, 'watermark' FROM generate_series(%s - interval '20000 hours', %s, '1 hour') AS hour",
        [NOON, NOON],
    )
    ledger.execute(
        "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
        " SELECT hour, 1, 1, 1, 1 FROM ledger.hour"
    )
    ledger.execute(
        "INSERT INTO ledger.publication_head (asset, hour, generation)"
        " SELECT 'bytes_agg_user_1h', hour, 1 FROM ledger.hour"
    )
    ledger.execute("ANALYZE ledger.hour, ledger.hour_generation, ledger.publication_head")
    reads = (
        "SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables"
        " WHERE schemaname = 'ledger' AND relname IN ('hour', 'hour_generation', 'publication_head')"
    )
    with ledger.transaction():
        before = ledger.execute(reads).fetchall()
        for period in ("hour", "day", "month"):
            ask(ledger, period=period)
        assert ledger.execute(reads).fetchall() == before
