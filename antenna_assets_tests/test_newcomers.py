"""Unknown users heal: when their metadata arrives, the hours in which they have bytes are published again."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg
import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.lifetimes import LONGEST_RUN
from antenna_assets.ledger import newcomers
from antenna_assets.ledger.certificate import require_certificate
from antenna_assets.ledger.newcomers import ask_for_hours_of_newcomers
from antenna_assets.operations.forget.run import forget
from antenna_assets.operations.sweep.retention import expire_files
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, HOURS, KNOWN, World
from antenna_assets_tests.certified import publish as run
from antenna_assets_tests.local_runs import publish, tick

pytestmark = pytest.mark.services

STRANGER = "a stranger"
NOEL = "no\u00ebl '\\ \u0001"


@pytest.fixture
def connection(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
    monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
    with connect(world.url) as opened:
        yield opened


def add(connection: psycopg.Connection, *users: str, quota: int = 0) -> None:
    connection.execute(
        "INSERT INTO user_metadata (id, name, email, quota) SELECT id, 'name', 'e-mail', %s FROM unnest(%s::text[]) AS id",
        [quota, list(users)],
    )


def asked(connection: psycopg.Connection) -> list[datetime]:
    rows = connection.execute("SELECT hour FROM ledger.hour_to_publish ORDER BY hour").fetchall()
    return [hour for (hour,) in rows]


def search(connection: psycopg.Connection, *, after: timedelta = timedelta(0)) -> list[datetime]:
    ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
    return ask_for_hours_of_newcomers(connection, now + after)


def e_mails(connection: psycopg.Connection, user: str) -> set[str | None]:
    rows = connection.execute("SELECT email FROM bytes_agg_user_1h WHERE id = %s", [user])
    return {email for (email,) in rows}


def publish_what_is_asked_for() -> int:
    with dg.DagsterInstance.ephemeral() as instance:
        return sum(of.success for _, of in publish(instance))


def test_hours_of_a_user_who_was_unknown_are_published_again_and_judged_by_its_quota(
    world: World, connection: psycopg.Connection
) -> None:
    assert e_mails(connection, STRANGER) == {None}
    before = require_certificate(connection, FIRST)
    add(connection, STRANGER)
    assert publish_what_is_asked_for() == 1
    assert e_mails(connection, STRANGER) == {"e-mail"}
    over = connection.execute("SELECT date, quota FROM users_over_quota_1h WHERE id = %s", [STRANGER])
    assert sorted(over.fetchall()) == [(hour, 0) for hour in HOURS[:2]]
    after = require_certificate(connection, FIRST)
    assert (before.content["unknown_users"]["users"], after.content["unknown_users"]["users"]) == (2, 1)
    assert after.generation == before.generation == 1
    found = verify(connection, Lake(str(world.lake)), kept_since=FIRST)
    assert (found.differences, found.pending) == ([], {})
    with dg.DagsterInstance.ephemeral() as instance:
        assert tick(instance) == []


def test_a_tick_names_the_hours_and_asks_for_them_at_once(connection: psycopg.Connection) -> None:
    add(connection, STRANGER, NOEL)
    with dg.DagsterInstance.ephemeral() as instance:
        (request,) = tick(instance)
    assert request.tags["dagster/asset_partition_range_start"] == hour_key(FIRST)
    assert request.tags["dagster/asset_partition_range_end"] == hour_key(FIRST + HOUR)
    assert asked(connection) == HOURS[:2]


def test_users_who_were_never_seen_or_known_all_along_ask_for_nothing(connection: psycopg.Connection) -> None:
    add(connection, "never seen")
    connection.execute("UPDATE user_metadata SET email = 'new', quota = 1")
    assert search(connection) == []
    assert asked(connection) == []


def test_publications_are_searched_in_parts_and_again_for_who_comes_meanwhile(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newcomers, "HOURS_PER_TICK", 1)
    add(connection, STRANGER)
    assert search(connection) == [FIRST]
    add(connection, NOEL)
    assert search(connection) == [FIRST + HOUR]
    # The first round is over: the second one is for both, and looks at every hour.
    assert [search(connection), search(connection)] == [[FIRST], [FIRST + HOUR]]


def test_the_rows_of_a_tick_are_bounded_and_one_hour_is_always_searched(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newcomers, "ROWS_PER_TICK", 0)
    add(connection, STRANGER)
    assert [search(connection), search(connection)] == [[FIRST], [FIRST + HOUR]]


def test_a_run_that_had_read_its_users_before_is_found_after_its_hour_was_searched(
    world: World, connection: psycopg.Connection
) -> None:
    add(connection, STRANGER)
    assert search(connection) == HOURS[:2]
    run(world, HOURS)
    assert search(connection) == []
    # As it would be of a run that began before.
    connection.execute(
        "UPDATE bytes_agg_user_1h SET email = NULL WHERE id = %s AND date = %s", [STRANGER, FIRST]
    )
    connection.execute(
        "INSERT INTO ledger.publication (asset, hour, generation, rows, bytes, users_version, run_id, content)"
        " SELECT asset, hour, generation, rows, bytes, users_version, run_id,"
        "  jsonb_set(content, '{unknown_users,users}', '2') FROM ledger.publication"
        " WHERE asset = 'bytes_agg_user_1h' AND hour = %s ORDER BY number DESC LIMIT 1",
        [FIRST],
    )
    assert search(connection) == [FIRST]
    assert search(connection, after=2 * LONGEST_RUN) == []
    assert connection.execute("SELECT count(*) FROM ledger.newcomer").fetchall() == [(0,)]


def test_hours_past_the_horizon_heal_from_the_lake(connection: psycopg.Connection) -> None:
    expire_files(connection, horizon=timedelta(0), now=FIRST + 4 * HOUR + LONGEST_RUN)
    add(connection, STRANGER)
    assert publish_what_is_asked_for() == 1
    assert e_mails(connection, STRANGER) == {"e-mail"}


def test_who_is_forgotten_is_searched_for_no_more(world: World, connection: psycopg.Connection) -> None:
    add(connection, STRANGER, KNOWN[0] + "0")
    forget(connection, Lake(str(world.lake)), STRANGER, say=print)
    assert connection.execute(
        "SELECT count(*) FROM ledger.newcomer WHERE id = %s", [STRANGER]
    ).fetchall() == [(0,)]
    publish_what_is_asked_for()
    found = verify(connection, Lake(str(world.lake)), kept_since=FIRST)
    assert (found.differences, found.pending) == ([], {})


def test_hours_whose_users_were_dropped_are_left_as_they_are(connection: psycopg.Connection) -> None:
    connection.execute("SELECT ledger.drop_user_days(%s)", [FIRST + timedelta(days=2)])
    add(connection, STRANGER)
    assert search(connection) == []


def test_users_of_a_new_installation_are_no_newcomers(postgres_url: str) -> None:
    with connect(postgres_url) as fresh:
        assert fresh.execute("SELECT count(*) FROM ledger.newcomer").fetchall() == [(0,)]
