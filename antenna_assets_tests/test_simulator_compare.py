"""The comparison finds exactly what was made wrong, in a real PostgreSQL that is otherwise as the answers say."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql
from rich.console import Console

from antenna_assets.clients.postgres import DatabaseError
from antenna_assets.ledger.user_hours import make_user_days
from antenna_assets.simulator.answers import Answers, known_users
from antenna_assets.simulator.compare import Difference, differences, report
from antenna_assets.simulator.events import Scenario, messages
from antenna_assets.simulator.rejected import counts_by_reason
from antenna_assets.storage.project_files import sql_folder

START = datetime(2026, 11, 22, 8, tzinfo=UTC)
TOPIC_ID = "AbCdEf"
ASSETS = ("bytes_agg_antenna_1h", "bytes_agg_user_1h", "bytes_agg_app_1h", "users_over_quota_1h")


@pytest.fixture(scope="module")
def answers() -> Answers:
    of = Scenario(events=600, seed=3, start=START, hours=2, unknown_users=0.05, malformed=0.1)
    answers = Answers(known_users(sql_folder() / "seed" / "users.csv"), scenario=of)
    for _message in answers.counted(messages(of)):
        pass
    answers.record("devices", TOPIC_ID, {0: (0, 400), 1: (100, 300)})
    return answers


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def database(postgres_url: str, answers: Answers) -> Iterator[psycopg.Connection]:
    """A database that holds what the answers say, published as generation 1."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        make_user_days(connection, [START])
        for table, rows in answers.tables().items():
            for row in rows:
                query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    sql.Identifier(table),
                    sql.SQL(", ").join(map(sql.Identifier, row)),
                    sql.SQL(", ").join(sql.Placeholder() * len(row)),
                )
                connection.execute(query, list(row.values()))
        connection.execute(
            "INSERT INTO ledger.head (topic, topic_id, batch) VALUES ('devices', %s, 1)", [TOPIC_ID]
        )
        connection.execute(
            "INSERT INTO ledger.batch (batch, kind, clock, rows, bytes, quarantined, late_rows)"
            " VALUES (1, 'stream', now(), 540, 0, 60, 0), (2, 'replay', now(), 0, 0, 1, 0)"
        )
        connection.execute(
            "INSERT INTO ledger.batch_offset VALUES ('devices', %(id)s, 0, 0, 400, 1), ('devices', %(id)s, 1, 0, 300, 1)",
            {"id": TOPIC_ID},
        )
        for row in answers.hours():
            figures = [row["hour"], row["rows"], row["bytes"]]
            connection.execute(
                "INSERT INTO ledger.hour (hour, rows, bytes, closed_at, closed_by, generation)"
                " VALUES (%s, %s, %s, now(), 'watermark', 1)",
                figures,
            )
            connection.execute(
                "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes) VALUES (%s, 1, 1, %s, %s)",
                figures,
            )
            for asset in ASSETS:
                connection.execute(
                    "INSERT INTO ledger.publication_head VALUES (%s, %s, 1)", [asset, row["hour"]]
                )
        yield connection


def quarantined(
    connection: psycopg.Connection,
    path: Path,
    rows: list[tuple[str, int, int]],
    *,
    lake: Path,
    batch: int = 1,
) -> None:
    """Land a file of rejected (reason, partition, offset) and enter it into the ledger, relative to the lake."""
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons, partitions, offsets = zip(*rows, strict=True)
    columns = {
        "reason": list(reasons),
        "kafka_partition": pa.array(partitions, pa.int32()),
        "kafka_offset": pa.array(offsets, pa.int64()),
    }
    pq.write_table(pa.table(columns), path)
    name = str(path.relative_to(lake)) if batch == 1 else str(path)
    connection.execute(
        "INSERT INTO ledger.file VALUES (%s, 'rejected', NULL, %s, 0, 1, %s)", [name, len(rows), batch]
    )


@pytest.mark.services
@pytest.mark.usefixtures("database")
def test_tables_that_are_as_the_answers_say_have_no_difference(answers: Answers, postgres_url: str) -> None:
    assert differences(answers, postgres_url) == []


@pytest.mark.services
def test_missing_unexpected_and_different_rows_are_named(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    over = answers.tables()["users_over_quota_1h"][0]
    app = answers.tables()["bytes_agg_app_1h"][0]
    database.execute(
        "DELETE FROM users_over_quota_1h WHERE date = %s AND id = %s", [over["date"], over["id"]]
    )
    database.execute("INSERT INTO bytes_agg_antenna VALUES ('2026-11-22 09:55Z', 'A9', 12)")
    database.execute(
        "UPDATE bytes_agg_app_1h SET sum_app_bytes = sum_app_bytes + 1 WHERE date = %s AND app = %s",
        [app["date"], app["app"]],
    )
    assert differences(answers, postgres_url) == [
        Difference("bytes_agg_antenna", "2026-11-22T09:55:00Z A9", "no row", "sum_antenna_bytes=12"),
        Difference(
            "bytes_agg_app_1h",
            f"{app['date']} {app['app']}",
            f"sum_app_bytes={app['sum_app_bytes']}",
            f"sum_app_bytes={app['sum_app_bytes'] + 1}",
        ),
        Difference(
            "users_over_quota_1h",
            f"{over['date']} {over['id']}",
            f"email={over['email']}, quota={over['quota']}, sum_user_bytes={over['sum_user_bytes']}",
            "no row",
        ),
    ]


@pytest.mark.services
def test_a_lost_email_of_a_known_user_is_a_difference(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    database.execute("UPDATE bytes_agg_user_1h SET email = NULL WHERE email = 'andres@gmail.com'")
    found = differences(answers, postgres_url)
    assert {difference.table for difference in found} == {"bytes_agg_user_1h"}
    assert all("email=andres@gmail.com" in each.expected and "email=None" in each.found for each in found)


@pytest.mark.services
def test_rows_of_other_hours_are_not_compared(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    for hour in ("2026-11-22 07:00Z", "2026-11-22 10:00Z"):
        database.execute("INSERT INTO bytes_agg_app_1h VALUES (%s, 'SKYPE', 1)", [hour])
        database.execute("INSERT INTO bytes_agg_app VALUES (%s, 'SKYPE', 1)", [hour])
    assert differences(answers, postgres_url) == []


@pytest.mark.services
def test_messages_that_were_not_read_come_first(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    database.execute("UPDATE ledger.batch_offset SET until_offset = 250 WHERE partition = 1")
    database.execute("DELETE FROM bytes_agg_app")
    first, *others = differences(answers, postgres_url)
    assert first.found == "the stream has not read 50 messages yet: run `antenna stream --available-now`"
    assert others


@pytest.mark.services
def test_offsets_of_a_deleted_topic_do_not_count_as_read(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    database.execute("UPDATE ledger.batch_offset SET topic_id = 'older'")
    (found,) = differences(answers, postgres_url)
    assert "has not read 600 messages" in found.found


@pytest.mark.services
def test_hours_that_are_not_published_are_named_and_their_rows_are_not(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    database.execute("DELETE FROM ledger.publication_head WHERE hour = '2026-11-22 09:00Z'")
    for table in ASSETS:
        database.execute(
            sql.SQL("DELETE FROM {} WHERE date = '2026-11-22 09:00Z'").format(sql.Identifier(table))
        )
    (found,) = differences(answers, postgres_url)
    assert found.table == ", ".join(ASSETS)
    assert found.key == "2026-11-22-09:00"
    assert found.found.startswith("1 hour is not published: run the job `hourly_usage`")


@pytest.mark.services
def test_rows_that_came_after_the_publication_are_named(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    database.execute("UPDATE ledger.hour SET rows = rows + 1")
    (found,) = differences(answers, postgres_url)
    assert found.key == "2026-11-22-08:00 to 2026-11-22-09:00"
    assert found.found.startswith("rows landed after the publication: run the job")


@pytest.mark.services
def test_live_windows_that_were_dropped_for_their_age_can_be_left_out(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    for table in ("bytes_agg_antenna", "bytes_agg_user", "bytes_agg_app"):
        database.execute(
            sql.SQL("DELETE FROM {} WHERE date < '2026-11-22 09:00Z'").format(sql.Identifier(table))
        )
    assert differences(answers, postgres_url)
    assert differences(answers, postgres_url, live_since=START.replace(hour=9)) == []


@pytest.mark.services
def test_a_live_table_is_compared_from_the_hour_on_of_which_it_has_every_event(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    second = START + timedelta(hours=1)
    database.execute("DELETE FROM bytes_agg_user WHERE date < %s", [second])
    note = "UPDATE ledger.live_table SET kept_from = %s WHERE name = 'bytes_agg_user'"
    database.execute("INSERT INTO ledger.live_table (name, left_out) VALUES ('bytes_agg_user', false)")
    database.execute(note, [second])
    assert differences(answers, postgres_url) == []
    database.execute(note, [START])
    assert {one.table for one in differences(answers, postgres_url)} == {"bytes_agg_user"}
    database.execute("UPDATE ledger.live_table SET left_out = true WHERE name = 'bytes_agg_user'")
    assert differences(answers, postgres_url) == []


def test_users_of_hours_that_were_dropped_for_their_age_are_not_compared(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    database.execute("DELETE FROM bytes_agg_user_1h")
    assert {one.table for one in differences(answers, postgres_url)} == {"bytes_agg_user_1h"}
    database.execute("UPDATE ledger.user_hours SET kept_from = %s", [START + timedelta(hours=2)])
    assert differences(answers, postgres_url) == []
    database.execute("DELETE FROM users_over_quota_1h")
    assert {one.table for one in differences(answers, postgres_url)} == {"users_over_quota_1h"}


def test_rejected_messages_are_counted_within_what_was_sent(
    answers: Answers, database: psycopg.Connection, postgres_url: str, lake: Path
) -> None:
    rows = [("blank", 0, 0), ("blank", 0, 399), ("not_json", 1, 100)]
    outside = [("blank", 0, 400), ("not_json", 1, 99), ("blank", 2, 100)]
    quarantined(database, lake / "landing" / "a.parquet", [*rows, *outside], lake=lake)
    quarantined(database, lake / "landing" / "replay.parquet", [("blank", 0, 1)], lake=lake, batch=2)
    count = counts_by_reason(postgres_url, str(lake))
    assert answers.sent is not None
    assert count(answers.sent) == {"blank": 2, "not_json": 1}
    found = differences(answers, postgres_url, rejected_in=count)
    assert {difference.table for difference in found} == {"rejected"}
    assert Difference("rejected", "blank", "5 messages", "2 messages") in found


@pytest.mark.services
def test_rejected_files_are_found_by_uri_too(
    answers: Answers, database: psycopg.Connection, postgres_url: str, lake: Path
) -> None:
    quarantined(database, lake / "landing" / "a.parquet", [("blank", 0, 0)], lake=lake)
    assert counts_by_reason(postgres_url, lake.as_uri())(answers.sent or {}) == {"blank": 1}


@pytest.mark.services
def test_answers_of_messages_that_were_never_sent_say_so(postgres_url: str) -> None:
    (found,) = differences(Answers({}), postgres_url)
    assert found.found == "an answers file of messages that were never sent"


def test_a_database_that_does_not_answer_is_one_clear_error(answers: Answers, closed_port: int) -> None:
    with pytest.raises(DatabaseError, match="cannot be used"):
        differences(answers, f"postgresql://nobody@127.0.0.1:{closed_port}/antenna")


def shown(found: list[Difference], **more: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(report(found, **more))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_report_shows_the_first_differences_and_how_many_more_there_are() -> None:
    found = [Difference("bytes_agg_app", f"[bold]{number}", "1", "2") for number in range(1500)]
    text = shown(found, limit=3)
    assert "1,500 differences" in text
    assert "[bold]2" in text
    assert "[bold]3" not in text
    assert "and 1,497 more" in text


def test_a_report_without_differences_says_so() -> None:
    assert "No difference" in shown([])


@pytest.mark.services
def test_row_28_an_hour_of_which_a_publication_was_not_finished_is_named(
    answers: Answers, database: psycopg.Connection, postgres_url: str
) -> None:
    database.execute(
        "UPDATE ledger.publication_head SET begun = 1 WHERE hour = '2026-11-22 09:00Z' AND asset = 'bytes_agg_app_1h'"
    )
    (found,) = differences(answers, postgres_url)
    assert (found.table, found.key, found.expected) == ("ledger", "2026-11-22-09:00", "wholly published")
    assert found.found.startswith("a publication was not finished: run the job")
