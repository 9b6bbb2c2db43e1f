"""Row 31 of docs/proofs.md: the largest sums and users without a quota, in the views, the checks, the report and the stream."""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg.types.json import Jsonb

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.domain.schema import ENRICHED_USAGE, HOURLY_TABLES, RAW_PARQUET
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.engines.transforms import transform
from antenna_assets.ledger.full_hours import FULL_HOUR_BYTES, full_hours
from antenna_assets.operations.report.write import write_report
from antenna_assets.publishing.users import write_users
from antenna_assets.settings import Settings
from antenna_assets.streaming.job import Stream
from antenna_assets.verify.claims.tables import over_quota_is_exact, table_claims
from antenna_assets_tests.end_to_end.runs import place
from antenna_assets_tests.serving_rows import FEDE, JUAN, hour, insert, publish, quota_since_ever

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
MOST = 2**63 - 1
"""What a column of 64 bits holds at most; an hour never has more."""


@pytest.fixture
def two_full_hours(connection: psycopg.Connection) -> psycopg.Connection:
    """Two published hours in which two users together, and the one antenna and app, have all that 64 bits hold."""
    for start in (TEN, TEN + HOUR):
        hour(connection, start, MOST)
        publish(connection, "bytes_agg_antenna_1h", start, 1, ("a-1", MOST))
        publish(connection, "bytes_agg_app_1h", start, 1, ("web", MOST))
        users = [(FEDE, "fede@gmail.com", MOST - 4), (JUAN, "juan@gmail.com", 4)]
        publish(connection, "bytes_agg_user_1h", start, 1, *users)
        publish(connection, "users_over_quota_1h", start, 1, (FEDE, "fede@gmail.com", 5_000, MOST - 4))
    return connection


def test_row_31_each_view_shows_the_largest_sums_and_their_sums_over_hours(
    two_full_hours: psycopg.Connection,
) -> None:
    share = 100 * (MOST - 4) / 5_000
    assert two_full_hours.execute(
        "SELECT bytes, percent, remaining, over_quota FROM usage_against_quota WHERE hour = %s ORDER BY bytes",
        [TEN],
    ).fetchall() == [(4, 0.004, 99_996, False), (MOST - 4, share, 5_000 - (MOST - 4), True)]
    history = two_full_hours.execute(
        "SELECT DISTINCT bytes, percent, excess FROM over_quota_history"
    ).fetchall()
    assert history == [(MOST - 4, share, MOST - 4 - 5_000)]
    two_full_hours.execute("UPDATE ledger.hour_generation SET bytes = 1 WHERE hour = %s", [TEN])
    hour(two_full_hours, TEN + 24 * HOUR, MOST)
    publish(two_full_hours, "bytes_agg_antenna_1h", TEN + 24 * HOUR, 1)
    compared = "SELECT day_before, day_change_percent FROM usage_compared WHERE hour = %s"
    assert two_full_hours.execute(compared, [TEN + 24 * HOUR]).fetchall() == [(1, 100.0 * (MOST - 1))]
    for view, column in (
        ("usage_by_antenna", "bytes"),
        ("usage_by_user", "bytes"),
        ("usage_by_app", "bytes"),
        ("top_talkers", "bytes"),
        ("hour_trust", "bytes"),
        ("bytes_hourly", "value"),
        ("user_quota_limit", "usage"),
    ):
        query = f"SELECT sum({column}) > 2^63::numeric - 10 FROM {view}"  # noqa: S608
        assert two_full_hours.execute(query.encode()).fetchall() == [(True,)], view


def test_row_31_live_sums_of_a_full_hour_are_shown(connection: psycopg.Connection) -> None:
    hour(connection, TEN, landed=MOST, closed=False)
    for table in ("bytes_agg_antenna", "bytes_agg_user", "bytes_agg_app"):
        insert(connection, table, (TEN, "x", MOST - 7), (TEN + timedelta(minutes=5), "x", 7))
    for view in ("usage_by_antenna", "usage_by_user", "usage_by_app"):
        query = f"SELECT bytes, source FROM {view}"  # noqa: S608
        assert connection.execute(query.encode()).fetchall() == [(MOST, "live")]


def test_row_31_the_report_adds_full_hours(two_full_hours: psycopg.Connection, tmp_path: Path) -> None:
    page = write_report(two_full_hours, day="2026-11-22", output=tmp_path / "page.html").read_text()
    assert f"{2 * MOST:,}" in page
    assert f"{MOST - 4:,}" in page


def test_row_31_checks_judge_a_table_that_holds_more_than_64_bits(two_full_hours: psycopg.Connection) -> None:
    insert(two_full_hours, "bytes_agg_user_1h", (TEN, "of nobody", None, MOST))
    two_full_hours.execute(
        "INSERT INTO ledger.publication (asset, hour, generation, rows, bytes, users_version, run_id)"
        " VALUES ('bytes_agg_user_1h', %s, 1, 2, %s, 1, 'run')",
        [TEN, MOST],
    )
    two_full_hours.execute(
        "INSERT INTO ledger.generation_landing (hour, generation, content) VALUES (%s, 1, %s)",
        [TEN, Jsonb({"landed": {"rows": 1, "bytes": MOST}})],
    )
    table = HOURLY_TABLES["bytes_agg_user_1h"]
    claims = table_claims(two_full_hours, table, [TEN])[TEN]
    assert {name: verdict.passed for name, verdict in claims.items()} == {
        "keys_are_unique": True,
        "no_negative_bytes": True,
        "bytes_are_conserved": False,
        "known_users_share": False,
    }
    assert claims["known_users_share"].metrics["unknown_users_bytes"] == MOST


def test_row_31_a_user_without_a_quota_is_known_and_never_over_it(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    quota_since_ever(connection, None, FEDE)
    users = write_users(connection, str(tmp_path), [TEN])
    events = [(FEDE, 2**36), (JUAN, 2**36), ("nobody", 7)]
    raw = pa.Table.from_pylist(
        [
            {
                "timestamp": TEN,
                "app": "web",
                "id": user,
                "antenna_id": "a-1",
                "bytes": bytes_,
                "kafka_partition": 0,
                "kafka_offset": offset,
            }
            for offset, (user, bytes_) in enumerate(events)
        ],
        schema=RAW_PARQUET,
    )
    pq.write_table(raw, tmp_path / "raw.parquet")
    with closing(DuckDBEngine(temp_directory=str(tmp_path / "spill"))) as engine:
        inputs = {
            "raw_parquet": Dataset([str(tmp_path / "raw.parquet")], RAW_PARQUET),
            **users.inputs(TEN),
        }
        files = engine.write(transform("enriched_usage"), inputs, ENRICHED_USAGE, str(tmp_path / "enriched"))
        usage = {"enriched_usage": Dataset([file.path for file in files], ENRICHED_USAGE)}
        table = HOURLY_TABLES["users_over_quota_1h"]
        over = engine.read(transform(table.name), usage, table.columns).to_pylist()
    assert [(row["id"], row["quota"]) for row in over] == [(JUAN, 100_000)]

    hour(connection, TEN, 2**37 + 7)
    version = connection.execute("SELECT version FROM ledger.users_version").fetchall()[0][0]
    users = [(FEDE, "fede@gmail.com", 2**36), (JUAN, "juan@gmail.com", 2**36)]
    publish(connection, "bytes_agg_user_1h", TEN, 1, *users, ("nobody", None, 7))
    publish(connection, "users_over_quota_1h", TEN, 1, (JUAN, "juan@gmail.com", 100_000, 2**36))
    for asset in ("bytes_agg_user_1h", "users_over_quota_1h"):
        connection.execute(
            "INSERT INTO ledger.publication (asset, hour, generation, rows, bytes, users_version, run_id)"
            " VALUES (%s, %s, 1, 2, 0, %s, 'run')",
            [asset, TEN, version],
        )
    assert over_quota_is_exact(connection, [TEN])[TEN].passed
    assert connection.execute(
        "SELECT id, quota, percent, remaining, over_quota FROM usage_against_quota WHERE id = %s", [FEDE]
    ).fetchall() == [(FEDE, None, None, None, False)]


def test_row_31_a_full_hour_takes_no_more_events_and_the_stream_goes_on(
    settings: Settings, new_stream: Callable[..., Stream]
) -> None:
    full = hour_of(datetime.now(UTC)) - 2 * HOUR
    event = {"bytes": 2**36, "app": "a", "id": "u", "antenna_id": "n"}
    values = [
        json.dumps({**event, "timestamp": start.timestamp() + 60}).encode()
        for start in (full, full, full + HOUR)
    ]
    assert settings.postgres_url is not None
    with connect(settings.postgres_url) as connection:
        connection.execute(
            "INSERT INTO ledger.hour (hour, rows, bytes) VALUES (%s, 1, %s)", [full, FULL_HOUR_BYTES]
        )
        assert full_hours(connection) == [full]
        place(settings, [(0, value) for value in values])
        new_stream().read_available()
        assert connection.execute("SELECT reason, rows FROM ledger.rejection").fetchall() == [
            ("bytes_out_of_range", 2)
        ]
        assert connection.execute(
            "SELECT hour, bytes FROM ledger.hour WHERE bytes > 0 ORDER BY hour"
        ).fetchall() == [
            (full, FULL_HOUR_BYTES),
            (full + HOUR, 2**36),
        ]
