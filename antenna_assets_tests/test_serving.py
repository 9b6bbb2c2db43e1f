"""Replacing an hour of a table that people read, on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antenna_assets.domain.schema import HOURLY_TABLES, USERS
from antenna_assets.errors import Superseded
from antenna_assets.ledger.publications import Publication
from antenna_assets.publishing import users as users_module
from antenna_assets.publishing.serving import replace_hour
from antenna_assets.publishing.users import UsersUnwritable, write_users

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
USER_1H = HOURLY_TABLES["bytes_agg_user_1h"]


@pytest.fixture
def ledger(connection: psycopg.Connection) -> psycopg.Connection:
    for hour in (TEN, TEN + HOUR):
        connection.execute("INSERT INTO ledger.hour (hour) VALUES (%s)", [hour])
        connection.execute(
            "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
            " SELECT %s, number, 0, 0, 0 FROM generate_series(1, 3) AS number",
            [hour],
        )
    return connection


def replace(connection: psycopg.Connection, generation: int, rows: list[tuple], hour: datetime = TEN) -> None:
    columns = list(zip(*rows, strict=True)) or [[], [], []]
    table = pa.table(columns, schema=USER_1H.columns)
    replace_hour(
        connection, USER_1H, table, Publication(USER_1H.name, hour, generation, len(rows), 0, 4, "run")
    )


def content(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute(
        "SELECT date, id, email, sum_user_bytes FROM bytes_agg_user_1h ORDER BY 1, 2"
    ).fetchall()


def test_an_hour_is_replaced_and_the_other_hours_stay(ledger: psycopg.Connection) -> None:
    replace(ledger, 1, [("b", None, 2**62), ("a", "a@x", 1)])
    replace(ledger, 1, [("z", None, 5)], TEN + HOUR)
    replace(ledger, 2, [("a", "a@x", 7), ("'; DROP TABLE bytes_agg_user_1h; --", "e\u0301\\", 0)])
    assert content(ledger) == [
        (TEN, "'; DROP TABLE bytes_agg_user_1h; --", "e\u0301\\", 0),
        (TEN, "a", "a@x", 7),
        (TEN + HOUR, "z", None, 5),
    ]


def test_the_same_generation_again_does_not_double_the_hour(ledger: psycopg.Connection) -> None:
    replace(ledger, 1, [("a", None, 1)])
    replace(ledger, 1, [("a", None, 1)])
    assert content(ledger) == [(TEN, "a", None, 1)]
    assert ledger.execute("SELECT count(*) FROM ledger.publication").fetchone() == (2,)


def test_an_hour_without_rows_is_published_as_empty(ledger: psycopg.Connection) -> None:
    replace(ledger, 1, [("a", None, 1)])
    replace(ledger, 2, [])
    assert content(ledger) == []


def test_an_older_generation_changes_nothing(ledger: psycopg.Connection) -> None:
    replace(ledger, 3, [("a", None, 3)])
    with pytest.raises(Superseded, match="bytes_agg_user_1h of 2026-11-22-10:00 holds generation 3"):
        replace(ledger, 2, [("a", None, 2)])
    assert content(ledger) == [(TEN, "a", None, 3)]


def test_rows_that_cannot_be_stored_leave_the_hour_as_it_was(ledger: psycopg.Connection) -> None:
    replace(ledger, 1, [("a", None, 1)])
    with pytest.raises(psycopg.errors.UniqueViolation):
        replace(ledger, 2, [("a", None, 2), ("a", None, 3)])
    assert content(ledger) == [(TEN, "a", None, 1)]
    assert ledger.execute("SELECT generation FROM ledger.publication_head").fetchall() == [(1,)]


def test_users_come_with_their_version_even_if_there_are_none(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    file = tmp_path / "users.parquet"
    before = write_users(connection, str(file))
    assert pq.read_metadata(file).num_rows == 20
    connection.execute("DELETE FROM user_metadata")
    assert write_users(connection, str(file)) == before + 1
    assert pq.read_table(file).equals(USERS.empty_table())


def test_users_that_cannot_be_written_are_an_error_that_says_where(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    with pytest.raises(
        UsersUnwritable, match=f"the file of users {tmp_path}/none/users.parquet cannot be written"
    ):
        write_users(connection, f"{tmp_path}/none/users.parquet")


def test_users_are_written_as_they_are_whatever_their_names(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        "",
        " ",
        ",",
        '"',
        '""',
        "'",
        "\n",
        "\r",
        "\r\n",
        "\\.",
        "\\N",
        "NULL",
        "1",
        "1.5",
        "true",
        "2026-11-22",
    ]
    names += ["a\n\\.\nb", "caf\u00e9", "\U0001f4f6", "\ufeffid", "x" * 5_000, "line\n" * 500]
    users = [{"id": f"u{n}", "name": name, "email": name, "quota": 2**62 + n} for n, name in enumerate(names)]
    connection.execute("DELETE FROM user_metadata")
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO user_metadata (id, name, email, quota) VALUES (%(id)s, %(name)s, %(email)s, %(quota)s)",
            users,
        )
    file = tmp_path / "users.parquet"
    # Blocks that end in the middle of a row.
    for block_bytes in (users_module._BLOCK_BYTES, 12_000):
        monkeypatch.setattr(users_module, "_BLOCK_BYTES", block_bytes)
        write_users(connection, str(file))
        found = pq.read_table(file)
        assert found.schema.equals(USERS)
        assert sorted(found.to_pylist(), key=lambda user: user["quota"]) == users
