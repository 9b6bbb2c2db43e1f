"""Any events in any zones: the rows of a day, as PostgreSQL's windows and the engine give them, are those of plain Python.

And what meets a day that is being published: a change of zone, a newer generation, a user who is forgotten.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.schema import ENRICHED_USAGE
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.errors import Superseded
from antenna_assets.ledger.period_generations import PeriodGeneration
from antenna_assets.ledger.period_publications import move_period_head
from antenna_assets.publishing.days import COMPUTED, ORDERED
from antenna_assets.publishing.windows import ZonesChanged, hold_zones, write_windows
from antenna_assets_tests.period_world import ANNA, BELA, CARO, Event, oracle_days
from antenna_assets_tests.test_period_boundaries import ZONES, same_clocks

pytestmark = pytest.mark.services

HOSTILE = [
    "Africa/Cairo",
    "America/Havana",
    "America/Nuuk",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Chatham",
]
CHANGES = [date(2026, 3, 8), date(2026, 3, 29), date(2026, 4, 5), date(2026, 10, 25), date(2026, 11, 1)]
MOVE = "UPDATE user_metadata SET zone = 'Asia/Kathmandu' WHERE id = %s"
ZONE = st.sampled_from(HOSTILE) | st.sampled_from(ZONES)


@pytest.fixture(scope="module")
def shared(new_database, migrated_template: str) -> Iterator[psycopg.Connection]:
    """A connection to a database whose users and zones the test below changes and takes back."""
    with new_database(migrated_template) as url, connect(url) as opened:
        yield opened


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBEngine]:
    engine = DuckDBEngine(threads=1, temp_directory=str(tmp_path_factory.mktemp("spill")))
    yield engine
    engine.close()


def near(instant: datetime) -> st.SearchStrategy[datetime]:
    """Instants around one, to the microsecond, most of them very near."""
    return (st.integers(-2, 2) | st.integers(-3_600_000_000, 3_600_000_000)).map(
        lambda microseconds: instant + timedelta(microseconds=microseconds)
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    day=st.sampled_from(CHANGES) | st.dates(date(2024, 1, 1), date(2030, 1, 1)),
    billing=ZONE,
    own=ZONE,
)
def test_row_41_a_day_is_that_of_plain_python_whatever_the_zones(
    shared: psycopg.Connection,
    engine: DuckDBEngine,
    tmp_path: Path,
    data: st.DataObject,
    day: date,
    billing: str,
    own: str,
) -> None:
    days = [day, day + timedelta(days=1)]
    assume(all(same_clocks(shared, zone, days) == {*days} for zone in (billing, own)))
    shared.execute("DELETE FROM user_zone_change")
    shared.execute("UPDATE ledger.billing_zone SET zone = %s", [billing])
    shared.execute(
        "INSERT INTO user_zone_change (id, from_day, zone) VALUES (%s, '-infinity', %s)", [BELA, own]
    )
    edges = shared.execute(
        "SELECT ledger.period_start('day', day, zone) FROM unnest(%s::date[]) AS day, unnest(%s::text[]) AS zone",
        [days, [billing, own]],
    ).fetchall()
    instants = st.one_of(*(near(edge.astimezone(UTC)) for (edge,) in edges))
    events = [
        Event(at.replace(tzinfo=None).isoformat(), user, bytes_)
        for at, user, bytes_ in data.draw(
            st.lists(
                st.tuples(instants, st.sampled_from([ANNA, BELA, CARO]), st.integers(0, 2**36)), max_size=12
            )
        )
    ]
    windows, inputs = write_windows(shared, day, str(tmp_path))
    rows = [
        {"timestamp": e.instant, "app": "app", "id": e.id, "antenna_id": "north", "bytes": e.bytes,
         "kafka_partition": 0, "kafka_offset": n, "name": None, "email": None, "quota": None}
        for n, e in enumerate(events)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, ENRICHED_USAGE), tmp_path / "usage.parquet")
    inputs["enriched_usage"] = Dataset([str(tmp_path / "usage.parquet")], ENRICHED_USAGE)
    found = engine.read(ORDERED, inputs, COMPUTED).to_pylist()
    oracle = oracle_days(events, billing, {BELA: own})
    assert {row["id"]: int(row["sum_user_bytes"]) for row in found} == {
        user: bytes_ for (of_day, user), bytes_ in oracle.items() if of_day == day
    }
    assert windows.own["users"] == (billing != own)


def test_a_zone_that_changes_while_a_day_is_computed_fails_the_day(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    windows, _ = write_windows(connection, date(2026, 10, 25), str(tmp_path))
    with connection.transaction():
        hold_zones(connection, windows)
        # Held until the publication's COMMIT: who changes a zone then sees that the day is published.
        with connect(postgres_url) as other:
            other.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute(MOVE, [ANNA])
    connection.execute(MOVE, [ANNA])
    with pytest.raises(ZonesChanged, match="publish the day again"), connection.transaction():
        hold_zones(connection, windows)


def test_row_41_an_older_generation_of_a_day_never_replaces_a_newer_one(
    connection: psycopg.Connection,
) -> None:
    first, second = (
        PeriodGeneration("month", date(2026, 10, 1), number, None, None, [], number) for number in (1, 2)
    )
    for sealed in (first, second):
        connection.execute(
            "INSERT INTO ledger.period_generation (period, day, generation, certificates, up_to_certificate)"
            " VALUES ('month', '2026-10-01', %s, '{}', 0)",
            [sealed.generation],
        )
    move_period_head(connection, second)
    move_period_head(connection, second)
    with pytest.raises(Superseded, match="the month 2026-10-01 holds generation 2; the older generation 1"):
        move_period_head(connection, first)
