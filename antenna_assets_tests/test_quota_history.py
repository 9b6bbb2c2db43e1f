"""The history of quotas in PostgreSQL: what changes of users write into it, and which quota was in force when."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antenna_assets_tests.serving_rows import FEDE, JUAN

pytestmark = pytest.mark.services

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ALWAYS = "since ever"


def version(connection: psycopg.Connection) -> int:
    return connection.execute("SELECT version FROM ledger.users_version").fetchall()[0][0]


def changes(connection: psycopg.Connection, user: str, period: str = "hour") -> list[tuple]:
    """Since when, the quota, and whether it ended."""
    return connection.execute(
        "SELECT CASE WHEN valid_from = '-infinity' THEN %s WHEN valid_from > now() - interval '1 minute' THEN 'now'"
        " ELSE valid_from::text END, quota, ended FROM user_quota_change WHERE id = %s AND period = %s"
        " ORDER BY user_quota_change.valid_from",
        [ALWAYS, user, period],
    ).fetchall()


def plans(connection: psycopg.Connection, user: str) -> list[tuple]:
    return connection.execute(
        "SELECT CASE WHEN valid_from = '-infinity' THEN %s ELSE 'now' END, plan FROM user_plan_change"
        " WHERE id = %s ORDER BY valid_from",
        [ALWAYS, user],
    ).fetchall()


def at(connection: psycopg.Connection, user: str, when: datetime, period: str = "hour") -> tuple:
    """Source and quota at an instant, by the function of one user; that of many must agree."""
    ((found),) = connection.execute(
        "SELECT source, quota FROM ledger.quota_at(%s, %s, %s)", [user, period, when]
    ).fetchall()
    of_many = connection.execute(
        "SELECT source, quota FROM ledger.quotas_at(%s, %s) WHERE id = %s", [period, when, user]
    ).fetchall()
    assert of_many == ([] if found[0] is None else [found])
    return found


def now(connection: psycopg.Connection) -> datetime:
    return connection.execute("SELECT clock_timestamp()").fetchall()[0][0]


def make_plan(connection: psycopg.Connection, name: str, quota: int | None, period: str = "hour") -> None:
    connection.execute("INSERT INTO plan VALUES (%s) ON CONFLICT DO NOTHING", [name])
    connection.execute(
        "INSERT INTO plan_quota_change VALUES (%s, %s, '-infinity', %s)", [name, period, quota]
    )


def test_the_first_quota_holds_since_ever_and_later_ones_from_their_change_on(
    connection: psycopg.Connection,
) -> None:
    before = now(connection)
    connection.execute("UPDATE user_metadata SET quota = 7 WHERE id = %s", [FEDE])
    assert changes(connection, FEDE) == [(ALWAYS, 5_000, False), ("now", 7, False)]
    assert changes(connection, JUAN) == [(ALWAYS, 100_000, False)]
    assert at(connection, FEDE, LONG_AGO) == ("own", 5_000)
    assert at(connection, FEDE, before) == ("own", 5_000)
    assert at(connection, FEDE, now(connection)) == ("own", 7)
    history = connection.execute(
        "SELECT quota, valid_from = '-infinity', valid_to IS NULL FROM quota_history WHERE id = %s"
        " ORDER BY valid_from",
        [FEDE],
    ).fetchall()
    assert history == [(5_000, True, False), (7, False, True)]


def test_what_is_set_to_what_it_was_and_other_columns_write_nothing(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE user_metadata SET quota = quota, email = 'new', zone = 'Asia/Kathmandu'")
    assert connection.execute("SELECT count(*) FROM user_quota_change").fetchall() == [(20,)]


def test_null_is_unlimited_nought_is_none_and_no_quota_is_another_answer(
    connection: psycopg.Connection,
) -> None:
    connection.execute("UPDATE user_metadata SET quota = NULL WHERE id = %s", [FEDE])
    connection.execute("UPDATE user_metadata SET quota = 0 WHERE id = %s", [JUAN])
    assert at(connection, FEDE, now(connection)) == ("own", None)
    assert at(connection, JUAN, now(connection)) == ("own", 0)
    assert at(connection, FEDE, now(connection), "day") == (None, None)
    assert at(connection, "nobody", now(connection)) == (None, None)


def test_a_user_without_a_quota_of_its_own_has_that_of_its_plan_and_its_own_wins(
    connection: psycopg.Connection,
) -> None:
    make_plan(connection, "gold", 9_000)
    connection.execute("INSERT INTO user_metadata (id, name, email, plan) VALUES ('p', 'p', 'p', 'gold')")
    assert (changes(connection, "p"), plans(connection, "p")) == ([], [(ALWAYS, "gold")])
    assert at(connection, "p", LONG_AGO) == ("plan", 9_000)
    before = now(connection)
    connection.execute("UPDATE user_metadata SET quota = 3 WHERE id = 'p'")
    assert changes(connection, "p") == [("now", 3, False)]
    assert at(connection, "p", before) == ("plan", 9_000)
    assert at(connection, "p", now(connection)) == ("own", 3)
    # An update to null is one to unlimited. Only who comes into a plan in the same statement has the plan's.
    connection.execute("UPDATE user_metadata SET quota = NULL WHERE id = 'p'")
    assert at(connection, "p", now(connection)) == ("own", None)
    connection.execute("UPDATE user_metadata SET quota = NULL, plan = 'gold' WHERE id = %s", [FEDE])
    assert changes(connection, FEDE) == [(ALWAYS, 5_000, False), ("now", None, True)]
    assert at(connection, FEDE, now(connection)) == ("plan", 9_000)


def test_a_plan_of_another_time_counts_and_a_plan_without_that_period_is_no_quota(
    connection: psycopg.Connection,
) -> None:
    make_plan(connection, "gold", 9_000)
    make_plan(connection, "days", 1, "day")
    connection.execute("INSERT INTO user_metadata (id, name, email, plan) VALUES ('p', 'p', 'p', 'gold')")
    in_gold = now(connection)
    connection.execute("INSERT INTO plan_quota_change (plan, period, quota) VALUES ('gold', 'hour', 8)")
    cheaper = now(connection)
    connection.execute("UPDATE user_metadata SET plan = 'days' WHERE id = 'p'")
    assert plans(connection, "p") == [(ALWAYS, "gold"), ("now", "days")]
    assert at(connection, "p", in_gold) == ("plan", 9_000)
    assert at(connection, "p", cheaper) == ("plan", 8)
    assert at(connection, "p", now(connection)) == (None, None)
    assert at(connection, "p", now(connection), "day") == ("plan", 1)
    connection.execute("UPDATE user_metadata SET plan = NULL WHERE id = 'p'")
    assert at(connection, "p", now(connection), "day") == (None, None)


def test_who_is_removed_has_no_quota_from_then_on_and_who_comes_back_has_one_from_then_on(
    connection: psycopg.Connection,
) -> None:
    make_plan(connection, "gold", 9_000)
    connection.execute("INSERT INTO user_quota_change (id, period, quota) VALUES (%s, 'day', 8)", [FEDE])
    connection.execute("UPDATE user_metadata SET plan = 'gold' WHERE id = %s", [FEDE])
    there = now(connection)
    connection.execute("DELETE FROM user_metadata WHERE id = %s", [FEDE])
    gone = now(connection)
    connection.execute("INSERT INTO user_metadata VALUES (%s, 'fede', 'f', 11)", [FEDE])
    assert [at(connection, FEDE, when) for when in (there, gone, now(connection))] == [
        ("own", 5_000),
        (None, None),
        ("own", 11),
    ]
    assert at(connection, FEDE, gone, "day") == (None, None)
    assert plans(connection, FEDE)[-1] == ("now", None)


def test_a_truncated_table_of_users_ends_every_quota(connection: psycopg.Connection) -> None:
    connection.execute("TRUNCATE user_metadata")
    assert at(connection, FEDE, now(connection)) == (None, None)
    assert at(connection, FEDE, LONG_AGO) == ("own", 5_000)


def test_an_id_that_is_changed_is_another_user(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE user_metadata SET id = 'other' WHERE id = %s", [FEDE])
    assert at(connection, FEDE, now(connection)) == (None, None)
    assert at(connection, FEDE, LONG_AGO) == ("own", 5_000)
    assert at(connection, "other", LONG_AGO) == ("own", 5_000)


def test_the_quota_and_plan_of_a_user_follow_what_is_written_into_the_history(
    connection: psycopg.Connection,
) -> None:
    def quota() -> int | None:
        return connection.execute("SELECT quota FROM user_metadata WHERE id = %s", [FEDE]).fetchall()[0][0]

    def insert(valid_from: str, quota: int | None, ended: bool = False) -> None:
        connection.execute(
            "INSERT INTO user_quota_change VALUES (%s, 'hour', %s::timestamptz, %s, %s)"
            " ON CONFLICT (id, period, valid_from) DO UPDATE SET quota = excluded.quota, ended = excluded.ended",
            [FEDE, valid_from, quota, ended],
        )

    insert("2021-01-01Z", 8)
    assert quota() == 8
    insert("2020-01-01Z", 9)
    assert quota() == 8
    insert("2021-01-01Z", 10)
    assert quota() == 10
    insert("2022-01-01Z", None, True)
    assert quota() is None
    make_plan(connection, "gold", 1)
    connection.execute("INSERT INTO user_plan_change VALUES (%s, '2023-01-01Z', 'gold')", [FEDE])
    connection.execute("INSERT INTO user_plan_change VALUES (%s, '2022-01-01Z', NULL)", [FEDE])
    plan = connection.execute("SELECT plan FROM user_metadata WHERE id = %s", [FEDE])
    assert plan.fetchall() == [("gold",)]
    assert len(plans(connection, FEDE)) == 2
    assert [row[1:] for row in changes(connection, FEDE)] == [
        (5_000, False),
        (9, False),
        (10, False),
        (None, True),
    ]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            "INSERT INTO user_quota_change VALUES ('u', 'hour', now() + interval '1 minute', 1)",
            "in_the_future",
        ),
        ("INSERT INTO user_quota_change VALUES ('u', 'hour', 'infinity', 1)", "in_the_future"),
        ("INSERT INTO user_quota_change VALUES ('u', 'week', now(), 1)", "period_check"),
        ("INSERT INTO user_quota_change VALUES ('u', 'hour', now(), -1)", "quota_check"),
        ("INSERT INTO user_quota_change VALUES ('u', 'hour', now(), 1, true)", "user_quota_change_check"),
        ("INSERT INTO plan VALUES ('')", "plan_name_check"),
        ("INSERT INTO plan_quota_change VALUES ('none', 'hour', now(), 1)", "plan_quota_change_plan_fkey"),
        ("UPDATE user_metadata SET plan = 'none'", "user_metadata_plan_fkey"),
        ("UPDATE user_metadata SET zone = 'Mars/Olympus'", "found 'Mars/Olympus'"),
        ("INSERT INTO user_metadata VALUES ('u', 'u', 'u', 1, NULL, 'foo+3')", "such as Asia/Kathmandu"),
        ("UPDATE user_metadata SET zone = 'asia/kathmandu'", "IANA name"),
    ],
)
def test_what_makes_no_sense_is_refused(connection: psycopg.Connection, statement: str, said: str) -> None:
    with pytest.raises(psycopg.errors.IntegrityError, match=said):
        connection.execute(statement.encode())


def test_each_statement_that_changes_what_is_judged_by_is_a_version_of_the_users(
    connection: psycopg.Connection,
) -> None:
    for statement in (
        "INSERT INTO plan VALUES ('gold')",
        "INSERT INTO plan_quota_change (plan, period, quota) VALUES ('gold', 'hour', 1)",
        "UPDATE user_metadata SET plan = 'gold'",
        "UPDATE user_metadata SET quota = 1",
        "DELETE FROM user_metadata",
        "INSERT INTO user_quota_change (id, period, quota) VALUES ('u', 'day', 1)",
        "UPDATE user_plan_change SET plan = NULL",
        "TRUNCATE user_metadata",
    ):
        before = version(connection)
        connection.execute(statement.encode())
        assert version(connection) > before, statement


Step = tuple[str, Any]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("quota"), st.sampled_from([None, 0, 5, 6])),
        st.tuples(st.just("plan"), st.sampled_from([None, "a", "b"])),
        st.tuples(st.just("plan a"), st.sampled_from([None, 0, 7])),
        st.tuples(st.just("remove"), st.none()),
        st.tuples(st.just("add"), st.tuples(st.sampled_from([None, 8]), st.sampled_from([None, "a", "b"]))),
        st.tuples(st.just("end own"), st.none()),
    ),
    max_size=8,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(st.sampled_from([None, 8]), st.sampled_from([None, "a", "b"])), steps)
def test_at_each_instant_the_answer_is_the_one_of_then_whatever_comes_later(
    connection: psycopg.Connection, first: tuple[int | None, str | None], taken: Sequence[Step]
) -> None:
    """An oracle keeps the state after each step; PostgreSQL is asked for all of them at the end."""
    own: tuple[int | None] | None = None
    known, plan = False, None
    plans_quota: dict[str, tuple[int | None] | None] = {"a": (1,), "b": None}
    expected: list[tuple[datetime, tuple]] = []
    with connection.transaction(force_rollback=True):
        make_plan(connection, "a", 1)
        connection.execute("INSERT INTO plan VALUES ('b')")
        for what, value in [("add", first), *taken]:
            if what == "add" and not known:
                connection.execute(
                    "INSERT INTO user_metadata (id, name, email, quota, plan) VALUES ('u', '', '', %s, %s)",
                    value,
                )
                known, plan = True, value[1]
                own = None if value[0] is None and plan is not None else (value[0],)
            elif what == "remove" and known:
                connection.execute("DELETE FROM user_metadata WHERE id = 'u'")
                known, plan, own = False, None, None
            elif what == "quota" and known:
                before = own[0] if own else None
                connection.execute("UPDATE user_metadata SET quota = %s WHERE id = 'u'", [value])
                own = own if before == value else (value,)
            elif what == "plan" and known:
                connection.execute("UPDATE user_metadata SET plan = %s WHERE id = 'u'", [value])
                # Not set to null by this statement, but left without one of its own.
                plan = value
            elif what == "plan a":
                connection.execute(
                    "INSERT INTO plan_quota_change (plan, period, quota) VALUES ('a', 'hour', %s)", [value]
                )
                plans_quota["a"] = (value,)
            elif what == "end own" and known:
                connection.execute(
                    "INSERT INTO user_quota_change (id, period, ended) VALUES ('u', 'hour', true)"
                )
                own = None
            of_plan = plans_quota[plan] if plan else None
            expected.append(
                (now(connection), ("own", *own) if own else ("plan", *of_plan) if of_plan else (None, None))
            )
            time.sleep(0.0001)
        # A new user has its quota and its plan since ever.
        expected.append((LONG_AGO, expected[0][1]))
        assert [(when, at(connection, "u", when)) for when, _ in expected] == expected


def test_the_history_of_many_users_costs_no_statement_for_each(connection: psycopg.Connection) -> None:
    def cpu_seconds() -> float:
        times = psutil.Process(connection.info.backend_pid).cpu_times()
        return times.user + times.system

    before = cpu_seconds()
    connection.execute(
        "INSERT INTO user_metadata (id, name, email, quota)"
        " SELECT 'user-' || n, 'name', 'mail', 1000 FROM generate_series(1, 100000) AS n"
    )
    assert connection.execute("SELECT count(*) FROM user_quota_change").fetchall() == [(100_020,)]
    # A million take 12 s of CPU, of which 5 are those of the users themselves.
    assert cpu_seconds() - before < 10


def test_whose_quota_may_have_changed_between_two_instants_are_found(connection: psycopg.Connection) -> None:
    def changed(since: datetime, until: datetime) -> set[str]:
        rows = connection.execute("SELECT id FROM ledger.quotas_changed('hour', %s, %s)", [since, until])
        return {id_ for (id_,) in rows}

    make_plan(connection, "gold", 1)
    connection.execute("UPDATE user_metadata SET plan = 'gold' WHERE id = %s", [JUAN])
    began = now(connection)
    assert changed(began, began + timedelta(days=1)) == set()
    connection.execute("UPDATE user_metadata SET quota = 1 WHERE id = %s", [FEDE])
    own = now(connection)
    connection.execute("INSERT INTO plan_quota_change (plan, period, quota) VALUES ('gold', 'hour', 2)")
    assert changed(began, own) == {FEDE}
    assert changed(own, now(connection)) == {JUAN}
    assert changed(began - timedelta(days=1), now(connection)) == {FEDE, JUAN}
