"""`antenna quota` and `antenna backfill --quota-of now`: what they change, what they show, and what they refuse."""

import json
import random
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.operations.quotas.changes import Changed, change_plan, change_user
from antenna_assets.operations.quotas.csv_file import import_quotas
from antenna_assets.operations.quotas.quota import Quota, QuotaRefused, parse_quota
from antenna_assets.operations.quotas.rejudge import judge_by_quotas_of_now
from antenna_assets.operations.quotas.verdicts import Verdict
from antenna_assets_tests.certified import FIRST, HOURS, KNOWN, World
from antenna_assets_tests.certified import publish as run
from antenna_assets_tests.commands import Done, antenna
from antenna_assets_tests.local_runs import publish
from antenna_assets_tests.test_quota_of_then import bytes_of, over

pytestmark = pytest.mark.services

USER = KNOWN[3]
"""With a quota of 5,000 bytes an hour, and over it in the first two hours."""


@pytest.fixture
def connection(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
    monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
    with connect(world.url) as opened:
        yield opened


def quota(world: World, *arguments: str) -> Done:
    return antenna("quota", *arguments, ANTENNA_POSTGRES_URL=world.url, ANTENNA_LAKE=str(world.lake))


def publish_what_is_asked_for() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert all(of.success for _, of in publish(instance))


def asked(connection: psycopg.Connection) -> list[datetime]:
    rows = connection.execute("SELECT hour FROM ledger.hour_to_publish ORDER BY hour").fetchall()
    return [hour for (hour,) in rows]


def in_force(connection: psycopg.Connection, user: str, period: str = "hour") -> tuple:
    return connection.execute(
        "SELECT source, quota FROM ledger.quota_at(%s, %s, clock_timestamp())", [user, period]
    ).fetchall()[0]


def everything(connection: psycopg.Connection) -> list:
    return [
        connection.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1".encode()).fetchall()  # noqa: S608
        for table in ("user_quota_change", "plan_quota_change", "user_metadata", "ledger.users_version")
    ]


def test_a_quota_from_now_on_changes_no_published_hour(connection: psycopg.Connection) -> None:
    changed = change_user(connection, USER, "hour", Quota(10**9))
    assert (changed.changes, changed.verdicts.hours) == (1, [])
    assert in_force(connection, USER) == ("own", 10**9)
    assert connection.execute("SELECT quota FROM user_metadata WHERE id = %s", [USER]).fetchall() == [
        (10**9,)
    ]
    assert asked(connection) == []


def test_a_correction_of_the_past_is_published_again_up_to_the_next_change(
    connection: psycopg.Connection,
) -> None:
    change_user(connection, USER, "hour", Quota(7), valid_from=FIRST + HOUR)
    publish_what_is_asked_for()
    assert over(connection, FIRST + HOUR)[USER] == 7
    changed = change_user(connection, USER, "hour", Quota(10**9), valid_from=FIRST - HOUR)
    assert changed.verdicts.hours == [FIRST]
    assert (changed.verdicts.over, changed.verdicts.no_longer) == (0, 1)
    assert changed.verdicts.shown == (Verdict(FIRST, USER, bytes_of(connection, USER, FIRST), 10**9, False),)
    assert asked(connection) == [FIRST]
    publish_what_is_asked_for()
    assert USER not in over(connection, FIRST)
    assert over(connection, FIRST + HOUR)[USER] == 7
    # The newest change is still the one in force.
    assert in_force(connection, USER) == ("own", 7)


def test_days_and_months_that_a_correction_concerns_are_published_again(
    connection: psycopg.Connection,
) -> None:
    days = [FIRST.date() + timedelta(days=number) for number in (-9, 0)]
    for period, day in [*(("day", day) for day in days), ("month", FIRST.date().replace(day=1))]:
        connection.execute(
            "INSERT INTO ledger.period_generation VALUES (%s, %s, 1, %s, %s, '{}', 0)",
            [period, day, *((FIRST, FIRST + HOUR) if period == "day" else (None, None))],
        )
        connection.execute("INSERT INTO ledger.period_head VALUES (%s, %s, 1, 1, 1)", [period, day])

    def again() -> list[tuple]:
        return connection.execute(
            "SELECT period, day FROM ledger.period_head WHERE asked_users_version > users_version ORDER BY 1, 2"
        ).fetchall()

    assert change_user(connection, USER, "day", Quota(5)).periods == {}
    assert change_user(connection, USER, "day", Quota(5), valid_from=FIRST, dry_run=True).periods != {}
    assert again() == []
    changed = change_user(connection, USER, "day", Quota(6), valid_from=FIRST)
    assert changed.periods == {"day": [days[1]]}
    assert again() == [("day", days[1])]
    change_plan(connection, "small", "month", Quota(7))
    changed = change_plan(connection, "small", "month", Quota(8), valid_from=FIRST)
    assert changed.periods == {"month": [FIRST.date().replace(day=1)]}
    assert again() == [("day", days[1]), ("month", FIRST.date().replace(day=1))]


def test_a_dry_run_shows_what_would_have_been_and_changes_nothing(connection: psycopg.Connection) -> None:
    change_user(connection, USER, "hour", Quota(6))
    before = everything(connection)
    what_if = change_user(connection, USER, "hour", Quota(10**9), dry_run=True)
    assert what_if.what_if_since == FIRST
    assert (what_if.verdicts.over, what_if.verdicts.no_longer) == (0, 2)
    assert what_if.verdicts.hours == HOURS[:2]
    corrected = change_user(connection, USER, "hour", Quota(10**9), valid_from=FIRST + HOUR, dry_run=True)
    assert (corrected.what_if_since, corrected.verdicts.no_longer) == (None, 1)
    plan = change_plan(connection, "gold", "hour", Quota(1), dry_run=True)
    assert plan.verdicts.hours == []
    assert everything(connection) == before
    assert asked(connection) == []


def test_back_to_the_plan_and_the_quota_of_a_plan(connection: psycopg.Connection) -> None:
    change_plan(connection, "gold", "hour", Quota(10**9))
    connection.execute("UPDATE user_metadata SET plan = 'gold' WHERE id = %s", [USER])
    assert in_force(connection, USER) == ("own", 5_000)
    change_user(connection, USER, "hour", parse_quota("plan"))
    assert in_force(connection, USER) == ("plan", 10**9)
    change_user(connection, USER, "day", parse_quota("unlimited"))
    assert in_force(connection, USER, "day") == ("own", None)
    what_if = change_plan(connection, "gold", "hour", Quota(0), dry_run=True)
    # It was not in the plan in these hours.
    assert what_if.verdicts.over == 0
    change_plan(connection, "gold", "hour", Quota(0))
    assert in_force(connection, USER) == ("plan", 0)


def test_the_past_of_a_plan_concerns_who_was_in_it(connection: psycopg.Connection) -> None:
    change_plan(connection, "gold", "hour", Quota(10**9))
    connection.execute("INSERT INTO user_plan_change VALUES (%s, '-infinity', 'gold')", [USER])
    change_user(connection, USER, "hour", parse_quota("plan"), valid_from=FIRST)
    publish_what_is_asked_for()
    assert USER not in over(connection, FIRST)
    changed = change_plan(connection, "gold", "hour", Quota(3), valid_from=FIRST + HOUR)
    assert changed.verdicts.hours == [FIRST + HOUR]
    publish_what_is_asked_for()
    assert USER not in over(connection, FIRST)
    assert over(connection, FIRST + HOUR)[USER] == 3


def test_a_quota_in_the_future_or_of_nobody_is_refused_and_nothing_changed(
    connection: psycopg.Connection,
) -> None:
    before = everything(connection)
    tomorrow = FIRST + timedelta(days=2)
    with pytest.raises(QuotaRefused, match="found a future one"):
        change_user(connection, USER, "hour", Quota(1), valid_from=tomorrow)
    with pytest.raises(QuotaRefused, match="found a future one"):
        change_plan(connection, "new", "hour", Quota(1), valid_from=tomorrow)
    with pytest.raises(QuotaRefused, match="expected a user of user_metadata, found 'nobody'"):
        change_user(connection, "nobody", "hour", Quota(1))
    assert everything(connection) == before


def test_a_file_is_imported_as_a_whole(connection: psycopg.Connection, tmp_path: Path) -> None:
    file = tmp_path / "quotas.csv"
    file.write_bytes(
        b"\xef\xbb\xbfquota,period,id,valid_from\r\n"
        + f'7,hour,{USER},{FIRST:%Y-%m-%dT%H:%M:%SZ}\r\nunlimited,day,"{USER}",\r\nplan,hour,{KNOWN[0]},\r\n'.encode()
    )
    dry = import_quotas(connection, file, dry_run=True)
    assert (dry.changes, dry.verdicts.no_longer) == (3, dry.verdicts.no_longer)
    changed = import_quotas(connection, file)
    assert (changed.changes, changed.verdicts.hours) == (3, HOURS[:2])
    assert (in_force(connection, USER), in_force(connection, USER, "day")) == (("own", 7), ("own", None))
    assert in_force(connection, KNOWN[0]) == (None, None)
    assert asked(connection) == HOURS[:2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,quota\n", "expected a first line with the columns id, period, quota"),
        ("", "expected a first line"),
        ("id,period,quota,more\n", "found 'id,period,quota,more'"),
        ("id,period,quota\nnobody,hour,1\n", "line 2: expected a user of user_metadata, found 'nobody'"),
        ("id,period,quota\n{u},hour,1\n{u},week,1\n", "line 3: expected hour, day or month, found 'week'"),
        ("id,period,quota\n{u},hour,-1\n", "line 2: expected bytes from 0 to 2^63-1, unlimited or plan"),
        ("id,period,quota\n{u},hour,9223372036854775808\n", "line 2: expected bytes"),
        ("id,period,quota\n{u},hour,\n", "line 2: expected a quota, found none"),
        ("id,period,quota\n,hour,1\n", "line 2: expected the id of a user, found none"),
        ("id,period,quota\n{u},hour,1\n{u},hour,2\n", "line 2: expected each user once"),
        ("id,period,quota,valid_from\n{u},hour,1,2026-11-20\n", "line 2: expected an instant with a zone"),
        ("id,period,quota,valid_from\n{u},hour,1,2026-02-30T00:00Z\n", "line 2: expected an instant"),
        ("id,period,quota,valid_from\n{u},hour,1,2999-01-01T00:00Z\n", "found a future one"),
        ("id,period,quota\n{u},hour,1\n{u},hour\n", "line 3: expected id, period, quota as CSV"),
        ("id,period,quota\n{u},hour,1,2\n", "line 2: expected id, period, quota as CSV"),
    ],
)
def test_a_file_with_a_fault_is_refused_by_the_line_and_nothing_changed(
    connection: psycopg.Connection, tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "quotas.csv"
    file.write_text(content.format(u=USER))
    before = everything(connection)
    with pytest.raises(QuotaRefused, match=re.escape(said)):
        import_quotas(connection, file)
    assert everything(connection) == before


def test_the_first_faults_of_many_are_named(connection: psycopg.Connection, tmp_path: Path) -> None:
    file = tmp_path / "quotas.csv"
    file.write_text("id,period,quota\n" + "nobody,hour,1\n" * 100)
    with pytest.raises(QuotaRefused) as refused:
        import_quotas(connection, file)
    assert "line 11: " in str(refused.value)
    assert "line 12: " not in str(refused.value)
    with pytest.raises(QuotaRefused, match="No such file"):
        import_quotas(connection, tmp_path / "none.csv")


def history(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute(
        "SELECT valid_from = '-infinity', quota, ended FROM user_quota_change"
        " WHERE id = %s AND period = 'hour' ORDER BY valid_from",
        [USER],
    ).fetchall()


def test_hours_are_judged_by_the_quotas_of_now_only_if_it_is_asked_for_and_stay_so(
    world: World, connection: psycopg.Connection
) -> None:
    change_user(connection, USER, "hour", Quota(4), valid_from=FIRST + HOUR + timedelta(minutes=5))
    publish_what_is_asked_for()
    change_user(connection, USER, "hour", Quota(10**9))
    run(world, HOURS)
    assert [over(connection, hour).get(USER) for hour in HOURS[:2]] == [5_000, 4]
    changed = judge_by_quotas_of_now(connection, HOURS[:1])
    assert (changed.changes, changed.verdicts.no_longer) == (1, 1)
    publish_what_is_asked_for()
    assert [over(connection, hour).get(USER) for hour in HOURS[:2]] == [None, 4]
    # What held after the range does so again, and the quota of now is what it was.
    assert history(connection) == [
        (True, 5_000, False),
        (False, 10**9, False),
        (False, 5_000, False),
        (False, 4, False),
        (False, 10**9, False),
    ]
    assert judge_by_quotas_of_now(connection, HOURS[:1]) == Changed(0, changed.verdicts.__class__([]))
    judge_by_quotas_of_now(connection, HOURS)
    run(world, HOURS)
    assert [over(connection, hour).get(USER) for hour in HOURS[:2]] == [None, None]
    assert in_force(connection, USER) == ("own", 10**9)


def test_the_plans_quota_of_now_is_written_into_the_past_and_the_user_stays_in_its_plan(
    world: World, connection: psycopg.Connection
) -> None:
    change_plan(connection, "gold", "hour", Quota(10**9))
    connection.execute("UPDATE user_metadata SET quota = NULL, plan = 'gold' WHERE id = %s", [USER])
    judge_by_quotas_of_now(connection, HOURS[:2])
    run(world, HOURS)
    assert [over(connection, hour).get(USER) for hour in HOURS[:2]] == [None, None]
    assert in_force(connection, USER) == ("plan", 10**9)
    assert [row[1:] for row in history(connection)] == [
        (5_000, False),
        (10**9, False),
        (5_000, False),
        (None, True),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_in_a_range_all_are_judged_by_now_and_everywhere_else_nothing_changes(
    connection: psycopg.Connection, seed: int
) -> None:
    choose = random.Random(seed)
    for quota_ in choose.choices([None, 0, 5, 10**6], k=6):
        connection.execute(
            "INSERT INTO user_quota_change VALUES (%s, 'hour', %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                USER,
                FIRST + timedelta(minutes=choose.randrange(-90, 240)),
                quota_,
                quota_ is None and choose.random() < 0.5,
            ],
        )
    instants = [FIRST + timedelta(minutes=number) for number in range(-120, 270, 7)]
    instants += [hour + HOUR - timedelta(microseconds=1) for hour in HOURS]

    def quotas() -> dict[datetime, int | None]:
        rows = connection.execute(
            "SELECT at, quota FROM unnest(%s::timestamptz[]) AS at, ledger.quota_at(%s, 'hour', at)",
            [instants, USER],
        )
        return dict(rows.fetchall())

    before, now = quotas(), in_force(connection, USER)
    judge_by_quotas_of_now(connection, HOURS[1:])
    after = quotas()
    assert in_force(connection, USER)[1] == now[1]
    judged = {hour + HOUR - timedelta(microseconds=1) for hour in HOURS[1:]}
    assert {after[at] for at in judged} == {now[1]}
    outside = [at for at in instants if not HOURS[1] <= at < HOURS[-1] + HOUR]
    assert {at: after[at] for at in outside} == {at: before[at] for at in outside}


def test_the_commands_say_what_they_do_without_an_e_mail(
    world: World, connection: psycopg.Connection
) -> None:
    shown = quota(world, "set", USER, "--quota", "1000000000", "--from", "2026-01-01T00:00:00Z", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert f"2 published hours are concerned, {hour_key(FIRST)} to {hour_key(FIRST + HOUR)}" in shown.stdout
    assert "0 over, 2 over no more" in shown.stdout
    assert "a dry run of 1 change: nothing was changed" in shown.stdout
    done = quota(world, "set", USER, "--quota", "7")
    assert done.stdout.splitlines() == ["no published hour is concerned", "1 change made"]
    json_ = json.loads(quota(world, "show", USER, "--json").stdout)
    assert json_["in_force"] == [
        {"period": "hour", "source": "own", "quota": 7},
        {"period": "day", "source": None, "quota": None},
        {"period": "month", "source": None, "quota": None},
    ]
    assert [change["quota"] for change in json_["history"]] == [5_000, 7]
    table = quota(world, "show", USER).stdout
    assert "since ever" in table
    assert "no quota" in table
    assert "@" not in table + shown.stdout + done.stdout
    assert "not in user_metadata" in quota(world, "show", "nobody").stdout
    assert in_force(connection, USER) == ("own", 7)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("set", "--quota", "1"), 2, "expected the id of a user, or --plan NAME"),
        (("set", "u", "--plan", "p", "--quota", "1"), 2, "expected the id of a user, or --plan NAME"),
        (("set", "nobody", "--quota", "1"), 1, "expected a user of user_metadata"),
        (("set", "nobody", "--quota", "many"), 1, "expected a number of bytes"),
        (("set", "nobody", "--quota", "1", "--period", "week"), 1, "expected one of the periods"),
        (("set", "nobody", "--quota", "1", "--from", "2026-01-01"), 2, "expected a time with a zone"),
        (("set", "--plan", "p", "--quota", "plan"), 1, "expected the name of a plan"),
    ],
)
def test_what_cannot_be_set_is_refused(
    world: World, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = quota(world, *arguments)
    assert done.returncode == code
    assert said in re.sub(r"[\s│]+", " ", done.stderr)


def test_the_dry_run_of_a_backfill_by_the_quotas_of_now_shows_the_verdicts(
    world: World, connection: psycopg.Connection
) -> None:
    connection.execute("UPDATE user_metadata SET quota = 1000000000 WHERE id = %s", [USER])

    def backfill(*options: str) -> Done:
        return antenna(
            "backfill",
            "--from",
            hour_key(FIRST),
            "--dry-run",
            *options,
            ANTENNA_POSTGRES_URL=world.url,
            ANTENNA_LAKE=str(world.lake),
        )

    assert "nothing would change" in backfill().stdout
    of_now = backfill("--quota-of", "now")
    assert "no longer over" in of_now.stdout
    assert USER in of_now.stdout
    assert len(history(connection)) == 2
    assert backfill("--quota-of", "tomorrow").returncode == 2
