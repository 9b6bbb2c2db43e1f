"""What of a lake in Google Cloud Storage can be tried without Google: files, the embedded engine, landing and quarantine.

Not Delta and not Spark's connector: see `docs/object-stores.md`.
"""

from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.errors import EngineError
from antenna_assets.operations.quarantine.messages import Selection, by_reason
from antenna_assets.settings import Settings, load_settings
from antenna_assets.stack.jars import ensure
from antenna_assets.storage.files import walk
from antenna_assets.storage.paths import StoreError, lake_path, require_store
from antenna_assets_tests.exactness import assert_exact, held_by_the_broker
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.runs import PLAIN_STREAM, crash, send

pytestmark = pytest.mark.services

NUMBERS = pa.schema([pa.field("n", pa.int64(), nullable=False)])


def test_the_embedded_engine_writes_and_reads_and_leaves_nothing_of_what_fails(gs_place: str) -> None:
    engine = DuckDBEngine(threads=1)
    try:
        files = engine.write("SELECT range AS n FROM range(1000)", {}, NUMBERS, f"{gs_place}/out")
        numbers = {"numbers": Dataset([file.path for file in files], NUMBERS)}
        found = engine.read("SELECT CAST(sum(n) AS BIGINT) AS n FROM numbers", numbers, NUMBERS)
        assert found["n"].to_pylist() == [499_500]
        before = {one.path for one in walk(lake_path(gs_place))}
        with pytest.raises(EngineError, match="expected a folder that does not exist yet"):
            engine.write("SELECT 1::BIGINT AS n", {}, NUMBERS, f"{gs_place}/out")
        with pytest.raises(EngineError, match="broken on purpose"):
            engine.write("SELECT error('broken on purpose')::BIGINT AS n", {}, NUMBERS, f"{gs_place}/other")
        assert {one.path for one in walk(lake_path(gs_place))} == before
    finally:
        engine.close()


def test_what_landed_is_exact_after_kills(
    settings: Settings,
    gs_place: str,
    connection: psycopg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTENNA_LAKE", gs_place)
    settings = load_settings()
    answers = tmp_path / "answers.json"
    for seed, point in enumerate(("stream.land.before_sync", "stream.commit.last_statement")):
        send(settings, answers, seed=seed, events=300)
        crash(settings, PLAIN_STREAM, point)
    read_everything(settings)
    assert_exact(settings, answers)
    assert len(held_by_the_broker(settings)) == 600
    rejected = sum(summary.messages for summary in by_reason(connection, gs_place, Selection()))
    assert rejected == connection.execute("SELECT sum(quarantined) FROM ledger.batch").fetchall()[0][0] > 0


def test_a_bucket_that_is_not_there_is_told(gs_place: str) -> None:
    require_store(gs_place)
    with pytest.raises(StoreError, match="bucket-of-nobody/x cannot be listed: "):
        require_store("gs://bucket-of-nobody/x")


def test_the_connector_is_the_one_that_is_locked() -> None:
    assert [jar.name for jar in ensure("gs")] == ["hadoop-gcp-3.5.0.jar"]
