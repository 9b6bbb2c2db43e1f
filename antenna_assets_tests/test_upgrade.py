"""docs/upgrade.md: a database of any older level is brought up with every hour as it was, and what a program does on another level.

The rows are those of a published lakehouse, without the columns that the older level has not.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from antenna_assets.clients import migrations
from antenna_assets.clients.migrations import migrate, require_migrated
from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.domain.hours import HOUR
from antenna_assets.ledger.failing import forget_published_hours, read_failing_hours
from antenna_assets.ledger.user_hours import make_user_days
from antenna_assets.publishing.lake import Lake
from antenna_assets.storage.project_files import sql_folder
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, HOURS, World, publish
from antenna_assets_tests.serving_rows import certify, hour

pytestmark = pytest.mark.services

MIGRATIONS = sorted(path.name for path in (sql_folder() / "migrations").glob("*.sql"))
# The serving tables come with the second one, certificates with the fourth.
LEVELS = range(2, len(MIGRATIONS))
CERTIFICATES = 4

Table = tuple[str, str]
Columns = dict[Table, list[str]]


@contextmanager
def program_of_level(level: int, folder: Path) -> Iterator[None]:
    """As a program knows it that has the first migrations only."""
    shutil.copytree(sql_folder(), folder)
    for name in MIGRATIONS[level:]:
        (folder / "migrations" / name).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations, "sql_folder", lambda: folder)
        yield


@pytest.fixture(scope="module")
def migrated_to(
    new_database: Callable[[str], AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int], str]]:
    """The name of a database of a level, to copy from: each is made once, from that of the level before."""
    made = {LEVELS[0] - 1: "template0"}

    def name(level: int) -> str:
        if level not in made:
            url = databases.enter_context(new_database(name(level - 1)))
            with (
                program_of_level(level, tmp_path_factory.mktemp("level") / "sql"),
                connect(url) as connection,
            ):
                migrate(connection)
            made[level] = urlsplit(url).path.removeprefix("/")
        return made[level]

    with ExitStack() as databases:
        yield name


@pytest.fixture
def older_url(
    level: int,
    migrated_to: Callable[[int], str],
    new_database: Callable[[str], AbstractContextManager[str]],
) -> Iterator[str]:
    """Address of a new database of the level."""
    with new_database(migrated_to(level)) as url:
        yield url


def columns(connection: psycopg.Connection) -> Columns:
    """The columns of each table of ours, but for the list of migrations."""
    found: Columns = {}
    for schema, table, column in connection.execute(
        "SELECT table_schema, table_name, column_name FROM information_schema.columns"
        " JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE table_schema IN ('public', 'ledger') AND table_type = 'BASE TABLE' AND table_name <> 'schema_migration'"
        " ORDER BY table_schema, table_name, ordinal_position"
    ).fetchall():
        found.setdefault((schema, table), []).append(column)
    return found


def statement(text: str, table: Table, names: list[str]) -> sql.Composed:
    listed = sql.SQL(", ").join(map(sql.Identifier, names))
    return sql.SQL(text).format(table=sql.Identifier(*table), columns=listed)


def rows(connection: psycopg.Connection, of: Columns) -> dict[Table, list[tuple]]:
    # As text: psycopg does not load instants such as '-infinity'.
    return {
        table: connection.execute(
            statement("SELECT ROW({columns})::text FROM {table} ORDER BY {columns}", table, names)
        ).fetchall()
        for table, names in of.items()
    }


def copy_rows(source: psycopg.Connection, target: psycopg.Connection) -> None:
    """Bring the rows of one database into another, as far as it has the tables and columns."""
    known = columns(source)
    # Triggers and foreign keys are for writers, not for a copy.
    target.execute("SET session_replication_role = replica")
    days = target.execute("SELECT to_regprocedure('ledger.make_user_days(timestamptz[])')").fetchone()
    if days != (None,):
        make_user_days(target, HOURS)
    for table, names in columns(target).items():
        shared = [name for name in names if name in known[table]]
        target.execute(statement("DELETE FROM {table}", table, shared))
        with (
            source.cursor().copy(
                statement("COPY (SELECT {columns} FROM {table}) TO STDOUT", table, shared)
            ) as read,
            target.cursor().copy(statement("COPY {table} ({columns}) FROM STDIN", table, shared)) as write,
        ):
            for data in read:
                write.write(data)
    target.execute("RESET session_replication_role")
    target.execute(
        "SELECT setval(pg_get_serial_sequence('ledger.publication', 'number'), max(number)) FROM ledger.publication"
    )


@pytest.mark.parametrize("level", LEVELS)
def test_a_database_of_an_older_level_is_brought_up_with_every_hour_as_it_was(
    certified_world: World, older_url: str, tmp_path: Path, level: int
) -> None:
    shutil.copytree(certified_world.lake, tmp_path / "lake")
    world = World(older_url, tmp_path / "lake")
    with connect(world.url) as connection:
        with connect(certified_world.url) as source:
            copy_rows(source, connection)
        older = columns(connection)
        before = rows(connection, older)
        assert before["public", "bytes_agg_user_1h"], "expected hours to be there"

        assert migrate(connection) == [f"migrations/{name}" for name in MIGRATIONS[level:]]

        assert rows(connection, older) == before
        require_migrated(connection)
    if level < CERTIFICATES:
        # Hours from before there were certificates get theirs when they are published again.
        with connect(world.url) as connection:
            assert verify(connection, Lake(str(world.lake)), kept_since=FIRST).certificates == 0
        publish(world, HOURS)
    with connect(world.url) as connection:
        found = verify(connection, Lake(str(world.lake)), kept_since=FIRST)
        assert (found.hours, found.differences, found.pending) == (3, [], {})
        hourly = {table: names for table, names in older.items() if table[1].endswith("_1h")}
        assert rows(connection, hourly) == {table: before[table] for table in hourly}


@pytest.mark.parametrize("level", LEVELS)
def test_an_older_program_runs_on_a_newer_schema_and_changes_nothing_of_it(
    connection: psycopg.Connection, tmp_path: Path, level: int
) -> None:
    with program_of_level(level, tmp_path / "sql"):
        require_migrated(connection)
        assert migrate(connection) == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_newer_program_refuses_an_older_schema_and_names_what_is_missing(
    older_url: str, level: int
) -> None:
    with (
        connect(older_url) as connection,
        pytest.raises(DatabaseError, match=f"lacks migration {MIGRATIONS[level]}; `antenna up` applies it"),
    ):
        require_migrated(connection)


@pytest.mark.parametrize("level", [MIGRATIONS.index("0016_requests.sql")])
def test_an_hour_that_failed_before_the_upgrade_goes_on_failing_and_one_that_was_published_does_not(
    older_url: str,
) -> None:
    with connect(older_url) as connection:
        hour(connection, FIRST, landed=10)
        hour(connection, FIRST + HOUR, 10)
        certify(connection, FIRST + HOUR, 1, 1, FIRST)
        connection.execute(
            "INSERT INTO ledger.failing_hour (hour, batch, attempts, run_id, ended, next_attempt)"
            " SELECT hour, 7, 10, 'run', now(), now() FROM ledger.hour"
        )
        migrate(connection)
        forget_published_hours(connection)
        (failing,) = read_failing_hours(connection)
        assert (failing.hour, failing.batch, failing.attempts, failing.stuck) == (FIRST, 7, 10, True)
