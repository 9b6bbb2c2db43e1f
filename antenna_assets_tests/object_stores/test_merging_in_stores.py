"""Small files are merged in object stores as on a disk: exact, after a kill too, and what they replace is swept later."""

from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.lifetimes import GRACE_PERIOD, SAFE_AGE
from antenna_assets.operations.quarantine.messages import Selection, select
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.settings import Settings, load_settings
from antenna_assets.storage.paths import lake_path
from antenna_assets_tests.exactness import assert_exact, assert_whole
from antenna_assets_tests.faults import merging_stream
from antenna_assets_tests.faults.runs import crash, finish, send

pytestmark = pytest.mark.services


@pytest.fixture(params=["s3", "gs"])
def in_store(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The test's settings, with a lake in a store."""
    if request.param == "s3":
        return request.getfixturevalue("on_s3")
    monkeypatch.setenv("ANTENNA_LAKE", request.getfixturevalue("gs_place"))
    assert settings.kafka_bootstrap
    return load_settings()


def files(connection: psycopg.Connection) -> list[tuple[str, bool]]:
    return connection.execute("SELECT path, merges > 0 FROM ledger.file").fetchall()


def test_small_files_in_a_store_are_merged(in_store: Settings, tmp_path: Path) -> None:
    answers, lake = tmp_path / "answers.json", lake_path(in_store.lake_uri)
    send(in_store, answers, events=300)
    crash(in_store, merging_stream.MODULE, "stream.merge.after_sync:2")
    assert_whole(in_store)
    finish(in_store, merging_stream.MODULE)
    assert_exact(in_store, answers)
    with connect(in_store.postgres_url or "") as connection:
        named = files(connection)
        assert any(merged for _, merged in named)
        replaced = connection.execute("SELECT path FROM ledger.replaced_file").fetchall()
        rejected = connection.execute("SELECT sum(rows) FROM ledger.rejection").fetchall()[0][0]
        assert select(connection, in_store.lake_uri, Selection()).num_rows == rejected
        assert all((lake / path).exists() for path, _ in named)
        if in_store.lake_uri.startswith("gs://"):
            return  # Google's emulator cannot list what deltalake asks for, so nothing is swept there.
        now = database_now(connection)
        for later, there in ((SAFE_AGE / 2, True), (GRACE_PERIOD + timedelta(minutes=5), False)):
            # As if the stream had gone on until then.
            connection.execute(
                "UPDATE ledger.batch SET committed_at = %s WHERE batch = (SELECT max(batch) FROM ledger.batch)",
                [now + later],
            )
            sweep(
                in_store.postgres_url or "",
                in_store.lake_uri,
                dagster_home=tmp_path / "dagster",
                horizon=in_store.horizon,
                now=now + later,
            )
            assert {(lake / path).exists() for (path,) in replaced} == {there}
        assert all((lake / path).exists() for path, _ in named)
