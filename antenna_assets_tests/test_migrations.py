"""Migrations, the seed and the errors of a database that is not there, on a real PostgreSQL."""

from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from antenna_assets.clients import migrations
from antenna_assets.clients import postgres as database
from antenna_assets.clients.migrations import migrate, require_migrated
from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.domain.schema import HOURLY_TABLES, LIVE_TABLES, PERIOD_TABLES, USER_METADATA

pytestmark = pytest.mark.services

POSTGRES_TYPES = {
    pa.string(): "text",
    pa.int64(): "bigint",
    pa.date32(): "date",
    pa.timestamp("us", tz="UTC"): "timestamp with time zone",
    pa.decimal128(38, 0): "numeric",
}


def columns(connection: psycopg.Connection, table: str) -> list[tuple]:
    return connection.execute(
        "SELECT column_name, data_type, is_nullable = 'YES' FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position",
        [table],
    ).fetchall()


def expected(schema: pa.Schema) -> list[tuple]:
    return [(field.name, POSTGRES_TYPES[field.type], field.nullable) for field in schema]


def test_the_tables_have_the_columns_that_the_schema_says(connection: psycopg.Connection) -> None:
    assert columns(connection, "user_metadata") == expected(USER_METADATA)
    date = ("date", "timestamp with time zone", False)
    for table in [*LIVE_TABLES.values(), *HOURLY_TABLES.values()]:
        assert columns(connection, table.name) == [date, *expected(table.columns)]
    for of_period in PERIOD_TABLES.values():
        assert columns(connection, of_period.name) == expected(of_period.columns)


def test_a_migrated_database_has_the_twenty_users_and_migrating_again_changes_nothing(
    connection: psycopg.Connection,
) -> None:
    users = connection.execute("SELECT id, name, email, quota FROM user_metadata ORDER BY id").fetchall()
    assert len(users) == 20
    assert users[3] == ("00000000-0000-0000-0000-000000000004", "fede", "fede@gmail.com", 5000)
    connection.execute("DELETE FROM user_metadata WHERE name = 'fede'")
    assert migrate(connection) == []
    assert connection.execute("SELECT count(*) FROM user_metadata").fetchone() == (19,)


def test_a_migration_that_was_changed_after_it_was_applied_is_refused(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0001_ledger.sql").write_text("SELECT 1")
    monkeypatch.setattr(migrations, "sql_folder", lambda: tmp_path)
    with pytest.raises(DatabaseError, match="0001_ledger.sql was changed after it was applied"):
        migrate(connection)


def test_a_migration_that_fails_leaves_nothing_of_itself(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0900_broken.sql").write_text("CREATE TABLE half (x int); SELECT 1 / 0")
    monkeypatch.setattr(migrations, "sql_folder", lambda: tmp_path)
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(connection)
    assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
    with pytest.raises(DatabaseError, match=r"lacks migration 0900_broken.sql; `antenna up` applies it"):
        require_migrated(connection)


def test_an_empty_database_is_told_to_be_migrated(postgres_server: str) -> None:
    with connect(postgres_server) as connection, pytest.raises(DatabaseError, match="antenna up"):
        require_migrated(connection)


def test_every_change_of_the_users_makes_a_new_version(connection: psycopg.Connection) -> None:
    def version() -> int:
        row = connection.execute("SELECT version FROM ledger.users_version").fetchone()
        assert row is not None
        return row[0]

    before = version()
    connection.execute("UPDATE user_metadata SET quota = quota + 1")
    connection.execute("DELETE FROM user_metadata WHERE name = 'fede'")
    assert version() == before + 2


def test_a_database_that_does_not_answer_is_named_without_its_password(closed_port: int) -> None:
    with pytest.raises(DatabaseError, match="antenna up") as error:
        connect(f"postgresql://someone:secret@127.0.0.1:{closed_port}/antenna")
    assert "secret" not in str(error.value)
    with pytest.raises(DatabaseError, match="expected an address such as"):
        connect("127.0.0.1:5432")


def test_the_views_of_the_other_layout_show_every_table(connection: psycopg.Connection) -> None:
    connection.execute(
        b"INSERT INTO bytes_agg_user VALUES ('2026-11-22 10:05Z', 'u', 7);"
        b"INSERT INTO bytes_agg_app_1h VALUES ('2026-11-22 10:00Z', 'SKYPE', 9);"
        b"INSERT INTO users_over_quota_1h VALUES ('2026-11-22 10:00Z', 'u', 'u@x', 5, 7)"
    )
    text = "SELECT to_char(timestamp, 'HH24:MI'), id, value, type FROM {}"
    assert connection.execute(text.format("bytes").encode()).fetchall() == [
        ("10:05", "u", 7, "user_total_bytes")
    ]
    assert connection.execute(text.format("bytes_hourly").encode()).fetchall() == [
        ("10:00", "SKYPE", 9, "app_total_bytes")
    ]
    assert connection.execute("SELECT email, usage, quota FROM user_quota_limit").fetchall() == [
        ("u@x", 7, 5)
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:a+b@h/d", "postgresql://u:a+b@h/d?options=-c%20search_path%3Ddagster"),
        (
            "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/ca",
            "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/ca&options=-c%20search_path%3Ddagster",
        ),
    ],
)
def test_dagster_enters_as_the_address_says(url: str, expected: str) -> None:
    assert database.dagster_url(url) == expected
