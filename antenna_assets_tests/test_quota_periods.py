"""Dry runs and corrections of quotas of days and months: what they show is what publishing then makes of them."""

import random
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from antenna_assets.domain.periods import PERIODS, Period
from antenna_assets.domain.schema import PERIOD_TABLES
from antenna_assets.operations.quotas.changes import Changed, change_plan, change_user
from antenna_assets.operations.quotas.csv_file import import_quotas
from antenna_assets.operations.quotas.quota import Quota, parse_quota
from antenna_assets.operations.quotas.verdicts import PeriodVerdicts, Verdict
from antenna_assets.publishing.over_quota import replace_over_quota
from antenna_assets_tests.commands import antenna
from antenna_assets_tests.period_world import set_quota

pytestmark = pytest.mark.services

DAYS = [date(2026, 10, day) for day in (27, 28, 29)]
OCTOBER = date(2026, 10, 1)
OVER = {
    "day": PERIOD_TABLES["users_over_quota_1d"],
    "month": PERIOD_TABLES["users_over_quota_1mo"],
}


def add_user(connection: psycopg.Connection, id_: str, zone: str | None = None) -> None:
    connection.execute(
        "INSERT INTO user_metadata (id, name, email, quota, zone) VALUES (%s, %s, %s, NULL, %s)",
        [id_, id_, f"{id_}@example.com", zone],
    )


def publish(
    connection: psycopg.Connection, used: Mapping[date, Mapping[str, int]], *, month: bool = False
) -> None:
    """Publish days with the bytes of their users, and perhaps October, judged by the quotas of now."""
    for day, of_day in used.items():
        connection.execute("SELECT ledger.make_user_months(%s)", [[day]])
        for id_, bytes_ in of_day.items():
            connection.execute(
                "INSERT INTO bytes_agg_user_1d VALUES (%s, %s, %s, NULL, %s)", [day, id_, day, bytes_]
            )
    published: list[tuple[Period, date]] = [("day", day) for day in used]
    if month:
        published.append(("month", OCTOBER))
    for period, day in published:
        connection.execute(
            "INSERT INTO ledger.period_generation"
            " SELECT %(period)s, %(day)s, 1, first_hour, end_hour, '{}', 0 FROM (SELECT) AS one"
            " LEFT JOIN ledger.day_hours(%(day)s) ON %(period)s = 'day'",
            {"period": period, "day": day},
        )
        connection.execute("INSERT INTO ledger.period_head VALUES (%s, %s, 1, 1, 1)", [period, day])
    publish_again(connection)


def publish_again(connection: psycopg.Connection) -> None:
    """Judge what is published by the quotas of now, as publishing does."""
    for period, day in connection.execute("SELECT period, day FROM ledger.period_head").fetchall():
        with connection.transaction():
            replace_over_quota(connection, OVER[period], day)


def over(connection: psycopg.Connection, period: Period) -> dict[tuple[date, str], int]:
    """The bytes of who is over quota in a period."""
    table = OVER[period]
    rows = connection.execute(f"SELECT {table.day}, id, sum_user_bytes FROM {table.name}".encode())  # noqa: S608
    return {(day, id_): int(bytes_) for day, id_, bytes_ in rows}


def lines(*arguments: str) -> list[str]:
    """The lines that `antenna quota` prints, with single blanks."""
    done = antenna("quota", *arguments)
    assert done.returncode == 0, done.stderr
    return [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip(" ─")]


def everything(connection: psycopg.Connection) -> list:
    return [
        connection.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1".encode()).fetchall()  # noqa: S608
        for table in ("user_quota_change", "plan_quota_change", "ledger.period_head", "ledger.users_version")
    ]


@pytest.mark.usefixtures("settings")
def test_a_dry_run_of_a_days_quota_lists_who_would_have_been_over_on_published_days(
    connection: psycopg.Connection,
) -> None:
    add_user(connection, "k")
    publish(connection, {DAYS[0]: {"k": 11}, DAYS[1]: {"k": 10, "l": 99}, DAYS[2]: {"k": 12}})
    before = everything(connection)
    assert lines("set", "k", "--period", "day", "--quota", "10", "--dry-run") == [
        "A quota from now on changes no published day. As if it had held since 2026-10-27,"
        " in 3 published days with bytes of these users:",
        "day user verdict bytes quota",
        "2026-10-27 k over 11 10",
        "2026-10-29 k over 12 10",
        "2 over, 0 over no more",
        "a dry run of 1 change: nothing was changed",
    ]
    assert lines(
        "set", "k", "--period", "day", "--quota", "10", "--from", "2026-10-28T00:00Z", "--dry-run"
    ) == [
        "2 published days are concerned, 2026-10-28 to 2026-10-29:",
        "day user verdict bytes quota",
        "2026-10-29 k over 12 10",
        "1 over, 0 over no more",
        "to be published again: 2 published days from 2026-10-28 on",
        "a dry run of 1 change: nothing was changed",
    ]
    assert everything(connection) == before


@pytest.mark.usefixtures("settings")
def test_a_dry_run_of_a_months_quota_lists_who_would_have_been_over_in_published_months(
    connection: psycopg.Connection,
) -> None:
    add_user(connection, "k")
    set_quota(connection, "k", "month", 30)
    publish(connection, {DAYS[0]: {"k": 11}, DAYS[1]: {"k": 10}, DAYS[2]: {"k": 12}}, month=True)
    assert lines("set", "k", "--period", "month", "--quota", "33", "--dry-run") == [
        "A quota from now on changes no published month. As if it had held since 2026-10-01,"
        " in 1 published month with bytes of these users:",
        "month user verdict bytes quota",
        "2026-10-01 k over no more 33 33",
        "0 over, 1 over no more",
        "a dry run of 1 change: nothing was changed",
    ]
    assert lines(
        "set", "k", "--period", "month", "--quota", "32", "--from", "2026-10-31T00:00Z", "--dry-run"
    ) == [
        "1 published month is concerned, 2026-10-01 to 2026-10-01:",
        "nobody would be over who was not, and nobody over no more",
        "to be published again: 1 published month from 2026-10-01 on",
        "a dry run of 1 change: nothing was changed",
    ]


@pytest.mark.usefixtures("settings")
def test_a_days_quota_from_now_on_and_one_without_published_days_concern_none(
    connection: psycopg.Connection,
) -> None:
    add_user(connection, "k")
    nothing = ["no published day is concerned", "a dry run of 1 change: nothing was changed"]
    assert lines("set", "k", "--period", "day", "--quota", "10", "--dry-run") == nothing
    publish(connection, {DAYS[0]: {"k": 11}})
    assert lines("set", "k", "--period", "day", "--quota", "10") == [
        "no published day is concerned",
        "1 change made",
    ]
    publish_again(connection)
    assert over(connection, "day") == {}


def test_a_file_with_quotas_of_hours_days_and_months_shows_the_verdicts_of_each(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    add_user(connection, "k")
    add_user(connection, "l")
    publish(connection, {DAYS[0]: {"k": 11, "l": 5}, DAYS[1]: {"k": 10, "l": 5}}, month=True)
    file = tmp_path / "quotas.csv"
    file.write_text(
        "id,period,quota,valid_from\nk,hour,1,\nk,day,10,\nl,day,4,2026-10-28T12:00Z\nk,month,20,\n"
    )
    found = import_quotas(connection, file, dry_run=True)
    assert found.of_hours
    assert found.of_periods == {
        "day": PeriodVerdicts(
            DAYS[:2],
            2,
            0,
            (Verdict(DAYS[0], "k", 11, 10, True), Verdict(DAYS[1], "l", 5, 4, True)),
            DAYS[0],
        ),
        "month": PeriodVerdicts([OCTOBER], 1, 0, (Verdict(OCTOBER, "k", 21, 20, True),), OCTOBER),
    }


def test_a_dry_run_judges_a_user_by_the_end_of_its_own_day(connection: psycopg.Connection) -> None:
    add_user(connection, "lord", "Australia/Lord_Howe")
    publish(connection, {DAYS[0]: {"lord": 11}, DAYS[1]: {"lord": 11}})
    # Its 27th is over at 13:00, and the billing zone's at midnight.
    found = change_user(
        connection, "lord", "day", Quota(10), valid_from=datetime(2026, 10, 27, 13, tzinfo=UTC), dry_run=True
    )
    assert found.of_periods["day"].shown == (Verdict(DAYS[1], "lord", 11, 10, True),)
    what_if = change_user(connection, "lord", "day", Quota(10), dry_run=True)
    assert what_if.of_periods["day"].over == 2


def test_a_dry_run_looks_at_the_newest_days_alone_and_lists_the_first_verdicts(
    connection: psycopg.Connection,
) -> None:
    days = [date(2026, 9, 1) + timedelta(days=number) for number in range(40)]
    add_user(connection, "k")
    publish(connection, {day: {"k": 11} for day in days})
    found = change_user(connection, "k", "day", Quota(10), dry_run=True).of_periods["day"]
    assert (found.days, found.over, len(found.shown)) == (days[9:], 31, 20)
    assert found.what_if_first == days[9]


def test_the_days_of_a_plan_concern_who_was_in_it(connection: psycopg.Connection) -> None:
    add_user(connection, "k")
    add_user(connection, "l")
    change_plan(connection, "gold", "day", Quota(100))
    connection.execute("INSERT INTO user_plan_change VALUES ('k', '-infinity', 'gold')")
    set_quota(connection, "l", "day", 5)
    publish(connection, {DAYS[0]: {"k": 11, "l": 11}, DAYS[1]: {"k": 11, "l": 11}})
    assert over(connection, "day") == {(DAYS[0], "l"): 11, (DAYS[1], "l"): 11}
    what_if = change_plan(connection, "gold", "day", Quota(10), dry_run=True).of_periods["day"]
    assert (what_if.what_if_first, what_if.over) == (DAYS[0], 2)
    noon = datetime(2026, 10, 28, 12, tzinfo=UTC)
    found = change_plan(connection, "gold", "day", Quota(10), valid_from=noon)
    assert found.of_periods["day"] == PeriodVerdicts([DAYS[1]], 1, 0, (Verdict(DAYS[1], "k", 11, 10, True),))
    publish_again(connection)
    assert over(connection, "day") == {(DAYS[0], "l"): 11, (DAYS[1], "l"): 11, (DAYS[1], "k"): 11}


ZONES = [None, "Australia/Lord_Howe", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu"]


@pytest.mark.parametrize("seed", range(4))
def test_a_correction_shows_exactly_the_verdicts_that_publishing_changes(
    connection: psycopg.Connection, seed: int
) -> None:
    choose = random.Random(seed)
    connection.execute(
        "UPDATE ledger.billing_zone SET zone = %s", [choose.choice(["UTC", "Pacific/Auckland", "Etc/GMT+12"])]
    )
    users = [f"user {number}" for number in range(len(ZONES))]
    for user, zone in zip(users, ZONES, strict=True):
        add_user(connection, user, zone)
        for period in PERIODS:
            set_quota(connection, user, period, choose.choice([None, 5, 15]))
            set_quota(
                connection, user, period, choose.choice([None, 5, 15]), f"{instant(choose):%Y-%m-%d %H:%M}"
            )
    publish(connection, {day: {user: choose.randrange(20) for user in users} for day in DAYS}, month=True)
    for _ in range(10):
        user, period = choose.choice(users), choose.choice(PERIODS)
        before, quota = over(connection, period), parse_quota(choose.choice(["unlimited", "plan", "7", "12"]))
        at = instant(choose)
        shown = change_user(connection, user, period, quota, valid_from=at, dry_run=True)
        assert over(connection, period) == before
        changed = change_user(connection, user, period, quota, valid_from=at)
        publish_again(connection)
        after = over(connection, period)
        assert verdicts(shown, period) == verdicts(changed, period)
        assert verdicts(changed, period) == (after.keys() - before.keys(), before.keys() - after.keys())


def instant(choose: random.Random) -> datetime:
    return datetime(2026, 10, 26, tzinfo=UTC) + timedelta(hours=choose.randrange(24 * 7))


def verdicts(changed: Changed, period: Period) -> tuple[set, set]:
    """Who is over, and who is over no more."""
    shown = changed.of_periods[period].shown
    return (
        {(one.when, one.user) for one in shown if one.over},
        {(one.when, one.user) for one in shown if not one.over},
    )
