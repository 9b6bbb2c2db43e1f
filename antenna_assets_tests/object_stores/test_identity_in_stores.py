"""Rows 35 and 36 in a store: whose lake it is, whose clock counts, and a table that is built anew."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.ledger.lake_identity import (
    WrongLake,
    adopt,
    id_of_lake,
    require_own_lake,
    require_same_lake,
)
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.storage.attempt import FilesGone, require_files
from antenna_assets.storage.files import file_system_now
from antenna_assets.storage.paths import lake_path
from antenna_assets_tests.object_stores.conftest import Bucket

pytestmark = pytest.mark.services


@pytest.fixture(params=["s3", "gs"])
def place(request: pytest.FixtureRequest) -> str:
    """An empty lake in a store."""
    if request.param == "gs":
        return request.getfixturevalue("gs_place")
    bucket: Bucket = request.getfixturevalue("bucket")
    return f"s3://{bucket.name}/a/lake"


def test_row_35_a_lake_in_a_store_is_claimed_once(place: str, connection: psycopg.Connection) -> None:
    for round_ in range(4):
        lake = f"{place}/{round_}"
        connection.execute("DELETE FROM ledger.lake")
        url = address(connection)

        def claim(_: int, lake: str = lake, url: str = url) -> str | None:
            with connect(url) as one:
                require_own_lake(one, lake)
                return id_of_lake(lake)

        with ThreadPoolExecutor(4) as pool:
            assert len({*pool.map(claim, range(4))}) == 1
        require_same_lake(connection, lake)
    with pytest.raises(WrongLake, match="do not belong together"):
        require_own_lake(connection, f"{place}/0")
    adopt(connection, f"{place}/0")
    require_own_lake(connection, f"{place}/0")


def test_row_35_a_file_of_the_id_is_never_written_over(place: str, connection: psycopg.Connection) -> None:
    (lake_path(place) / "lake-id").write_text("9e107d9d-372b-4b9a-8d3f-0b1a2c3d4e5f\n")
    with pytest.raises(WrongLake, match="expected one that no other ledger has claimed"):
        require_own_lake(connection, place)
    assert id_of_lake(place) == "9e107d9d-372b-4b9a-8d3f-0b1a2c3d4e5f"


def test_row_35_ages_are_those_of_the_store_and_files_are_looked_at(place: str) -> None:
    assert abs(file_system_now(lake_path(place)) - datetime.now(UTC)) < timedelta(minutes=1)
    root = lake_path(place)
    (root / "landing/1-a/hour=1/part-0.parquet").write_bytes(b"12345")
    sizes = {"landing/1-a/hour=1/part-0.parquet": 5}
    require_files(place, sizes)
    (root / "landing/1-a/hour=1/part-0.parquet").unlink()
    with pytest.raises(FilesGone, match="found no file"):
        require_files(place, sizes)


def test_row_35_a_sweep_with_another_ledger_removes_no_object(
    place: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    path = lake_path(place) / "landing/1-a/hour=1/part-0.parquet"
    path.write_bytes(b"12345")
    with pytest.raises(WrongLake, match="holds data"):
        sweep(
            address(connection),
            place,
            dagster_home=tmp_path,
            horizon=timedelta(days=35),
            now=datetime.now(UTC) + timedelta(days=1),
        )
    assert path.exists()


def address(connection: psycopg.Connection) -> str:
    info = connection.info
    return f"postgresql://{info.user}:{info.password}@{info.host}:{info.port}/{info.dbname}"
