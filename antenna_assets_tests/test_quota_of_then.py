"""Hours are judged by the quota that was in force at their last instant, whenever they are published."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, MICROSECOND
from antenna_assets.ledger.certificate import require_certificate
from antenna_assets.operations.forget.run import forget
from antenna_assets.publishing.lake import Lake
from antenna_assets.publishing.users import last_instant, write_users
from antenna_assets.verify.claims.tables import over_quota_is_exact
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, HOURS, KNOWN, Land, World, publish

pytestmark = pytest.mark.services

USER = KNOWN[3]
"""With a quota of 5,000 bytes an hour."""


@pytest.fixture
def connection(world: World) -> Iterator[psycopg.Connection]:
    with connect(world.url) as opened:
        yield opened


def over(connection: psycopg.Connection, hour: datetime) -> dict[str, int]:
    """The users over quota in an hour, each with the quota."""
    rows = connection.execute("SELECT id, quota FROM users_over_quota_1h WHERE date = %s", [hour])
    return dict(rows.fetchall())


def bytes_of(connection: psycopg.Connection, user: str, hour: datetime) -> int:
    return connection.execute(
        "SELECT sum_user_bytes FROM bytes_agg_user_1h WHERE date = %s AND id = %s", [hour, user]
    ).fetchall()[0][0]


def change(
    connection: psycopg.Connection, valid_from: datetime, quota: int | None, *, ended: bool = False
) -> None:
    connection.execute(
        "INSERT INTO user_quota_change VALUES (%s, 'hour', %s, %s, %s)", [USER, valid_from, quota, ended]
    )


def assert_verified(world: World, connection: psycopg.Connection) -> None:
    found = verify(connection, Lake(str(world.lake)), kept_since=FIRST)
    assert (found.differences, found.pending) == ([], {})
    assert all(one.passed for one in over_quota_is_exact(connection, HOURS).values())


def test_an_old_hour_that_is_published_again_has_its_old_verdict(
    world: World, connection: psycopg.Connection
) -> None:
    assert over(connection, FIRST)[USER] == 5_000
    connection.execute("UPDATE user_metadata SET quota = 10000000000")
    land = Land(connection, world.lake, seed=5)
    land.batch, land.offset = connection.execute(
        "SELECT max(batch), max(until_offset) FROM ledger.batch_offset"
    ).fetchall()[0]
    land({FIRST: 4}, newest=FIRST + 3 * HOUR)
    publish(world, HOURS)
    assert require_certificate(connection, FIRST).generation == 2
    assert over(connection, FIRST)[USER] == 5_000
    assert 10_000_000_000 not in over(connection, FIRST).values()
    assert_verified(world, connection)


def test_the_quota_of_an_hours_last_microsecond_counts_and_the_next_one_does_not(
    world: World, connection: psycopg.Connection
) -> None:
    change(connection, FIRST + HOUR - MICROSECOND, 1)
    change(connection, FIRST + HOUR, 10_000_000)
    publish(world, HOURS)
    assert over(connection, FIRST)[USER] == 1
    assert USER not in over(connection, FIRST + HOUR)
    assert_verified(world, connection)


def test_exactly_the_quota_is_not_over_it_and_a_byte_more_is(
    world: World, connection: psycopg.Connection
) -> None:
    first, second = (bytes_of(connection, USER, hour) for hour in HOURS[:2])
    change(connection, FIRST, first)
    change(connection, FIRST + HOUR, second - 1)
    publish(world, HOURS)
    assert USER not in over(connection, FIRST)
    assert over(connection, FIRST + HOUR)[USER] == second - 1


def test_a_user_without_an_own_quota_is_judged_by_its_plans_of_then(
    world: World, connection: psycopg.Connection
) -> None:
    connection.execute("INSERT INTO plan VALUES ('gold'), ('free')")
    connection.execute(
        "INSERT INTO plan_quota_change VALUES ('gold', 'hour', '-infinity', 3), ('gold', 'hour', %s, 4),"
        " ('free', 'hour', '-infinity', NULL)",
        [FIRST + HOUR],
    )
    connection.execute("INSERT INTO user_plan_change VALUES (%s, %s, 'gold')", [USER, FIRST])
    change(connection, FIRST, None, ended=True)
    connection.execute("UPDATE user_metadata SET plan = 'free' WHERE id = %s", [USER])
    publish(world, HOURS)
    assert [over(connection, hour).get(USER) for hour in HOURS] == [3, 4, None]
    assert_verified(world, connection)


def test_unlimited_in_a_plan_is_unlimited_and_not_the_plans(
    world: World, connection: psycopg.Connection
) -> None:
    connection.execute("INSERT INTO plan VALUES ('gold')")
    connection.execute("INSERT INTO plan_quota_change VALUES ('gold', 'hour', '-infinity', 3)")
    connection.execute("UPDATE user_metadata SET plan = 'gold'")
    connection.execute("UPDATE user_plan_change SET valid_from = '-infinity'")
    change(connection, FIRST, None)
    change(connection, FIRST + HOUR, None, ended=True)
    publish(world, HOURS)
    assert [over(connection, hour).get(USER) for hour in HOURS[:2]] == [None, 3]
    assert_verified(world, connection)


def test_a_user_that_is_forgotten_keeps_its_verdicts_and_its_history_under_another_name(
    world: World, connection: psycopg.Connection
) -> None:
    change(connection, FIRST + HOUR, 1)
    connection.execute("UPDATE user_metadata SET quota = NULL WHERE id = %s", [USER])
    publish(world, HOURS)
    before = [over(connection, hour)[USER] for hour in HOURS[:2]]
    pseudonym = forget(connection, Lake(str(world.lake)), USER, say=print).pseudonym
    history = "SELECT quota, ended FROM user_quota_change WHERE id = %s ORDER BY valid_from"
    assert connection.execute(history, [USER]).fetchall() == []
    assert connection.execute(history, [pseudonym]).fetchall() == [
        (5_000, False),
        (1, False),
        (None, False),
    ]
    publish(world, HOURS)
    assert [over(connection, hour)[pseudonym] for hour in HOURS[:2]] == before == [5_000, 1]
    assert_verified(world, connection)


def test_the_files_of_a_run_have_every_user_once_and_other_quotas_only_for_hours_that_need_them(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    hours = [FIRST + number * HOUR for number in range(4)]
    assert write_users(connection, str(tmp_path), hours).quotas == {}
    change(connection, FIRST + HOUR + timedelta(minutes=1), 8)
    change(connection, FIRST + 3 * HOUR, 9)
    users = write_users(connection, str(tmp_path), hours)
    in_file = {row["id"]: row["quota"] for row in pq.read_table(users.file).to_pylist()}
    assert (len(in_file), in_file[USER]) == (20, 9)
    other = {hour: pq.read_table(file).to_pylist() for hour, file in users.quotas.items()}
    assert other == {
        hours[0]: [{"id": USER, "quota": 5_000}],
        hours[1]: [{"id": USER, "quota": 8}],
        hours[2]: [{"id": USER, "quota": 8}],
    }
    assert users.quotas[hours[1]] == users.quotas[hours[2]]
    by_now = write_users(connection, str(tmp_path), hours[:1], judged_at=last_instant(hours[2]))
    assert by_now.quotas == {}
    assert {row["quota"] for row in pq.read_table(by_now.file).to_pylist() if row["id"] == USER} == {8}
