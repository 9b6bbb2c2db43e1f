"""A run looks up the users whom its events name, where they are few, and otherwise reads all that there are."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.ledger.certificate import require_certificate
from antenna_assets.operations.backfill import changes, current_users
from antenna_assets.publishing import outcomes, users
from antenna_assets.publishing.lake import Lake
from antenna_assets.publishing.users import UsersOfRun, few_ids, last_instant
from antenna_assets.verify import lake as verify_lake
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, HOURS, KNOWN, USERS, Land, World, publish

pytestmark = pytest.mark.services

ALL = {f"00000000-0000-0000-0000-{number:012}" for number in range(1, 21)}
"""Everybody in `user_metadata`."""


@pytest.fixture
def connection(world: World) -> Iterator[psycopg.Connection]:
    with connect(world.url) as opened:
        yield opened


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDBEngine]:
    with closing(DuckDBEngine(temp_directory=str(tmp_path / "spill"))) as opened:
        yield opened


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 20 users are many, and however many the events name, they are few."""
    monkeypatch.setattr(users, "MANY_USERS", 10)
    monkeypatch.setattr(users, "READ_IN_A_ROW", 0)


def raw_files(world: World) -> list[str]:
    return [file for one in Lake(str(world.lake)).hours("raw_parquet", HOURS).values() for file in one.files]


def ids_of(found: users.Users) -> set[str]:
    return set(pq.read_table(found.file)["id"].to_pylist())


def looked_up(monkeypatch: pytest.MonkeyPatch, reader: ModuleType = users) -> list[set[str] | None]:
    """The ids that are given to each statement that reads users; None: it reads all of them."""
    seen: list[set[str] | None] = []
    whole = users.write_users_of_snapshot

    def noted(connection: Any, target: str, judged_at: Any, ids: list[str] | None) -> None:
        seen.append(None if ids is None else set(ids))
        whole(connection, target, judged_at, ids)

    monkeypatch.setattr(reader, "write_users_of_snapshot", noted)
    return seen


@pytest.mark.usefixtures("few")
def test_users_that_events_name_are_looked_up(
    world: World, connection: psycopg.Connection, engine: DuckDBEngine, tmp_path: Path
) -> None:
    found = UsersOfRun(connection, str(tmp_path), HOURS).of(HOURS, raw_files(world), engine)
    assert ids_of(found) == set(KNOWN)
    assert found.version == users.users_version(connection)


@pytest.mark.parametrize(("many", "in_a_row", "most"), [(20, 0, 9), (10, 1, 9), (10, 0, 8)])
def test_all_users_are_read_once_where_they_are_few_or_most_are_named(
    world: World,
    connection: psycopg.Connection,
    engine: DuckDBEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    many: int,
    in_a_row: int,
    most: int,
) -> None:
    monkeypatch.setattr(users, "MANY_USERS", many)
    monkeypatch.setattr(users, "READ_IN_A_ROW", in_a_row)
    monkeypatch.setattr(users, "MOST_NAMED", most)
    seen = looked_up(monkeypatch)
    people = UsersOfRun(connection, str(tmp_path), HOURS)
    found = [people.of([hour], raw_files(world), engine) for hour in HOURS]
    assert (ids_of(found[0]), seen) == (ALL, [None])
    assert all(one is found[0] for one in found)


def test_hours_together_look_up_whom_each_hour_alone_would_look_up_again(
    world: World,
    connection: psycopg.Connection,
    engine: DuckDBEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """9 of 20 users are few for a run, and the same 9 for each of its three hours are not."""
    monkeypatch.setattr(users, "MANY_USERS", 10)
    monkeypatch.setattr(users, "READ_IN_A_ROW", 1)
    files = raw_files(world)
    assert ids_of(UsersOfRun(connection, str(tmp_path), HOURS).of(HOURS, files, engine)) == set(KNOWN)
    assert ids_of(UsersOfRun(connection, str(tmp_path), HOURS).of([FIRST], files, engine)) == ALL
    assert ids_of(UsersOfRun(connection, str(tmp_path), [FIRST]).of([FIRST], files, engine)) == set(KNOWN)


@pytest.mark.usefixtures("few")
def test_all_users_are_read_where_a_file_of_events_cannot_be(
    world: World, connection: psycopg.Connection, engine: DuckDBEngine, tmp_path: Path
) -> None:
    files = [*raw_files(world), str(tmp_path / "lost.parquet")]
    assert ids_of(UsersOfRun(connection, str(tmp_path), HOURS).of(HOURS, files, engine)) == ALL


@pytest.mark.usefixtures("few")
def test_hours_without_events_name_nobody(
    connection: psycopg.Connection, engine: DuckDBEngine, tmp_path: Path
) -> None:
    assert ids_of(UsersOfRun(connection, str(tmp_path), HOURS).of(HOURS, [], engine)) == set()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("most_rows", [1, 10_000])
def test_hours_of_users_that_were_looked_up_are_as_those_of_all(
    world: World, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, most_rows: int
) -> None:
    """Late rows, quotas of then, and one that a plan gives; in pieces, each with its own users, and together."""
    monkeypatch.setattr(outcomes, "MOST_ROWS", most_rows)
    connection.execute("INSERT INTO plan VALUES ('gold')")
    connection.execute("INSERT INTO plan_quota_change VALUES ('gold', 'hour', '-infinity', 3)")
    connection.execute("UPDATE user_metadata SET quota = NULL, plan = 'gold' WHERE id = %s", [KNOWN[0]])
    connection.execute(
        "INSERT INTO user_quota_change VALUES (%s, 'hour', %s, 7)", [KNOWN[3], last_instant(FIRST + HOUR)]
    )
    Land.on(connection, world.lake)({FIRST: 9, FIRST + HOUR: 8})
    seen = looked_up(monkeypatch)
    publish(world, HOURS)
    assert all(ids is not None and ids <= set(USERS) for ids in seen)
    assert len(seen) == (3 if most_rows == 1 else 1)
    # It compares every row with all users, once the thresholds are those of before.
    monkeypatch.undo()
    found = verify(connection, Lake(str(world.lake)), kept_since=FIRST)
    assert (found.differences, found.pending, found.hours) == ([], {}, 3)
    quotas = connection.execute(
        "SELECT date, quota FROM users_over_quota_1h WHERE id = %s ORDER BY date", [KNOWN[3]]
    ).fetchall()
    assert quotas == [(FIRST, 5_000), (FIRST + HOUR, 7)]


@pytest.mark.usefixtures("few")
def test_a_change_of_users_before_they_are_read_is_in_the_hour_and_in_its_version(
    world: World, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hour begins with one version of the users, and is joined and certified with the next one."""
    before = users.users_version(connection)

    def changed(*arguments: Any, **named: Any) -> list[str] | None:
        connection.execute("UPDATE user_metadata SET name = 'another' WHERE id = %s", [KNOWN[0]])
        return few_ids(*arguments, **named)

    monkeypatch.setattr(users, "few_ids", changed)
    publish(world, [FIRST])
    certificate = require_certificate(connection, FIRST)
    assert certificate.users_version == users.users_version(connection) == before + 1
    asked = connection.execute(
        "SELECT DISTINCT asked_users_version FROM ledger.publication_head"
        " WHERE hour = %s AND users_version IS NOT NULL",
        [FIRST],
    ).fetchall()
    assert asked == [(before + 1,)]
    files = Lake(str(world.lake)).hour("enriched_usage", FIRST).files
    names = {
        row["name"] for file in files for row in pq.read_table(file).to_pylist() if row["id"] == KNOWN[0]
    }
    assert names == {"another"}


@pytest.mark.usefixtures("few")
def test_a_dry_run_looks_the_users_of_each_hour_up(
    world: World, connection: psycopg.Connection, engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(
        "INSERT INTO user_quota_change VALUES (%s, 'hour', %s, 7)", [KNOWN[3], last_instant(FIRST)]
    )
    lake, seen = Lake(str(world.lake)), looked_up(monkeypatch)
    with current_users(connection, lake, HOURS) as people:
        changed = [changes(connection, lake, engine, people, hour).tables for hour in HOURS]
    assert seen == [set(USERS), set(USERS), set()]
    assert [[*tables] for tables in changed] == [["users_over_quota_1h"], ["users_over_quota_1h"], []]
    rows = [row for tables in changed[:2] for row in tables["users_over_quota_1h"].shown]
    assert {row.key for row in rows} == {KNOWN[3]}
    seen.clear()
    with current_users(connection, lake, HOURS, judged_at=FIRST) as people:
        assert [changes(connection, lake, engine, people, hour).tables for hour in HOURS] == [{}, {}, {}]
    assert None not in seen


@pytest.mark.usefixtures("few")
def test_a_verification_looks_the_users_of_an_hour_up_and_finds_one_that_is_wrong(
    world: World, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(world.lake))
    seen = looked_up(monkeypatch, verify_lake)
    assert verify(connection, lake, kept_since=FIRST).differences == []
    assert seen == [set(USERS), set(USERS), set()]
    connection.execute("UPDATE user_metadata SET name = 'another' WHERE id = %s", [KNOWN[0]])
    # As if the hours had been joined with this name.
    connection.execute("UPDATE ledger.users_version SET version = version - 1")
    assert {one.what for one in verify(connection, lake, kept_since=FIRST).differences} == {
        f"enriched_usage, name, e-mail and quota of user {KNOWN[0]}"
    }
