"""Replacing hours of a table that people read, on a real PostgreSQL."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.schema import HOURLY_TABLES, USERS
from antenna_assets.errors import EngineError, Superseded
from antenna_assets.ledger import user_hours
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.publications import Publication
from antenna_assets.ledger.user_hours import drop_user_days, make_user_days
from antenna_assets.publishing import csv_rows
from antenna_assets.publishing.csv_rows import CSV_SHA256, csv_of, stored_rows, stored_sha256
from antenna_assets.publishing.serving import HourOfTable, replace_hours
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


def batch(rows: list[tuple]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [[], [], []]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, USER_1H.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=USER_1H.columns)


def version(generation: int, hour: datetime = TEN) -> Publication:
    return Publication(USER_1H.name, hour, generation, 0, 0, 4, "run")


def replace(connection: psycopg.Connection, generation: int, rows: list[tuple], hour: datetime = TEN) -> None:
    done = replace_hours(connection, USER_1H, [HourOfTable(version(generation, hour), [batch(rows)], None)])
    if isinstance(done[hour], Superseded):
        raise done[hour]


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


def test_hours_are_replaced_together_and_one_that_is_newer_is_left_out(ledger: psycopg.Connection) -> None:
    replace(ledger, 3, [("old", None, 3)], TEN + HOUR)
    done = replace_hours(
        ledger,
        USER_1H,
        [
            HourOfTable(version(1), [batch([("a", None, 1)]), batch([("b", "b@x", 2)])], 3),
            HourOfTable(version(2, TEN + HOUR), [batch([("new", None, 2)])], 2),
        ],
    )
    assert content(ledger) == [(TEN, "a", None, 1), (TEN, "b", "b@x", 2), (TEN + HOUR, "old", None, 3)]
    published = done[TEN]
    assert isinstance(published, Publication)
    assert (published.rows, published.bytes) == (2, 3)
    assert published.content == {
        CSV_SHA256: stored_sha256(ledger, USER_1H, TEN),
        "unknown_users": {"users": 1, "bytes": 1},
    }
    assert str(done[TEN + HOUR]).startswith("bytes_agg_user_1h of 2026-11-22-11:00 holds generation 3")


def test_an_hour_whose_rows_have_not_its_bytes_stays_as_it_was_and_the_others_are_replaced(
    ledger: psycopg.Connection,
) -> None:
    replace(ledger, 1, [("a", None, 1)])
    done = replace_hours(
        ledger,
        USER_1H,
        [
            HourOfTable(version(2), [batch([("a", None, 5)])], 7),
            HourOfTable(version(2, TEN + HOUR), [batch([("b", None, 2)])], 2),
        ],
    )
    assert isinstance(done[TEN], LedgerError)
    assert str(done[TEN]) == "bytes_agg_user_1h: expected the hour's 7 bytes, found 5"
    assert content(ledger) == [(TEN, "a", None, 1), (TEN + HOUR, "b", None, 2)]
    heads = ledger.execute("SELECT hour, generation FROM ledger.publication_head ORDER BY hour").fetchall()
    assert heads == [(TEN, 1), (TEN + HOUR, 2)]


def test_an_hour_whose_rows_break_off_stays_as_it_was_and_the_others_are_replaced(
    ledger: psycopg.Connection,
) -> None:
    def rows() -> Iterator[pa.RecordBatch]:
        yield batch([("a", None, 5)])
        raise EngineError("DuckDB: a page is damaged")

    replace(ledger, 1, [("a", None, 1)])
    done = replace_hours(
        ledger,
        USER_1H,
        [
            HourOfTable(version(2), rows(), None),
            HourOfTable(version(2, TEN + HOUR), [batch([("b", None, 2)])], 2),
        ],
    )
    assert str(done[TEN]) == "DuckDB: a page is damaged"
    assert content(ledger) == [(TEN, "a", None, 1), (TEN + HOUR, "b", None, 2)]


def test_an_hour_is_published_though_its_day_was_dropped_just_now(
    ledger: psycopg.Connection, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep drops it after the publication has made it, and cannot while the rows are copied."""

    def drop() -> None:
        with connect(postgres_url) as other:
            drop_user_days(other, TEN + timedelta(days=1))

    def rows() -> Iterator[pa.RecordBatch]:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            drop()
        yield batch([("a", None, 5)])

    def make(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
        make_user_days(connection, hours)
        if not made:
            drop()
        made.append(hours)

    made: list[Sequence[datetime]] = []
    replace(ledger, 1, [("a", None, 1)])
    monkeypatch.setattr(user_hours, "make_user_days", make)
    done = replace_hours(ledger, USER_1H, [HourOfTable(version(2), rows(), 5)])
    assert made == [[TEN], [TEN]]
    assert isinstance(done[TEN], Publication)
    assert content(ledger) == [(TEN, "a", None, 5)]


TEXTS = st.one_of(
    st.sampled_from(["", " ", '"', ",", "\n", "\r\n", "\\", "\\.", "\\N", "NULL", "\ufeff"]),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(TEXTS, st.tuples(st.none() | TEXTS, st.integers(-(2**63), 2**63 - 1)), max_size=8))
def test_rows_are_stored_as_they_are_and_postgresql_gives_the_bytes_that_were_digested(
    ledger: psycopg.Connection, users: dict[str, tuple[str | None, int]]
) -> None:
    rows = [(key, *users[key]) for key in sorted(users, key=str.encode)]
    sent = csv_of(TEN, batch(rows)).to_pybytes()
    with ledger.transaction(force_rollback=True):
        make_user_days(ledger, [TEN])
        ledger.execute("DELETE FROM bytes_agg_user_1h")
        with ledger.cursor().copy("COPY bytes_agg_user_1h FROM STDIN (FORMAT csv)") as copy:
            copy.write(sent)
        assert [row[1:] for row in content(ledger)] == rows
        assert stored_sha256(ledger, USER_1H, TEN) == hashlib.sha256(sent).hexdigest()
        read = [row for part in stored_rows(ledger, USER_1H, TEN) for row in part.to_pylist()]
        assert sorted(map(tuple, map(dict.values, read)), key=lambda row: row[0].encode()) == rows


def test_users_come_with_their_version_even_if_there_are_none(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    file = tmp_path / "users.parquet"
    before = write_users(connection, str(tmp_path), [TEN]).version
    assert pq.read_metadata(file).num_rows == 20
    connection.execute("DELETE FROM user_metadata")
    assert write_users(connection, str(tmp_path), [TEN]).version == before + 1
    assert pq.read_table(file).equals(USERS.empty_table())


def test_users_that_cannot_be_written_are_an_error_that_says_where(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    with pytest.raises(
        UsersUnwritable, match=f"the file of users {tmp_path}/none/users.parquet cannot be written"
    ):
        write_users(connection, f"{tmp_path}/none", [TEN])


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
    for block_bytes in (csv_rows._BLOCK_BYTES, 12_000):
        monkeypatch.setattr(csv_rows, "_BLOCK_BYTES", block_bytes)
        write_users(connection, str(tmp_path), [TEN])
        found = pq.read_table(file)
        assert found.schema.equals(USERS)
        assert sorted(found.to_pylist(), key=lambda user: user["quota"]) == users
