"""proofs.md, row 43: days and months of a lake in S3, published from the files there, in the zones of users."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.publishing.lake import Lake
from antenna_assets.storage.paths import filesystem
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import World
from antenna_assets_tests.object_stores.conftest import Bucket
from antenna_assets_tests.period_world import (
    ANNA,
    BELA,
    KATHMANDU,
    Event,
    land,
    oracle_days,
    publish_hours,
    stored_days,
    use_zones,
)

pytestmark = pytest.mark.services

ZONES = {BELA: KATHMANDU}
EVENTS = [
    # Kathmandu's day ends at 18:15 in UTC.
    Event("2026-10-31 18:14:59.999999", BELA, 1),
    Event("2026-10-31 18:15:00", BELA, 20),
    Event("2026-10-31 20:00", ANNA, 300),
]
LATE = Event("2026-10-31 18:14:00", BELA, 4_000)
END = "2026-11-01 00:00"


def execute(job: str, tags: dict[str, str]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        resolved = build_definitions().resolve_job_def(job)
        assert resolved.execute_in_process(instance=instance, tags=tags).success


def test_row_43_days_and_months_are_published_from_files_in_s3(
    bucket: Bucket, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, place = World(postgres_url, tmp_path / "lake"), f"{bucket.name}/a/lake"
    with connect(postgres_url) as connection:
        use_zones(connection, "UTC", ZONES)
        connection.execute(
            "INSERT INTO user_quota_change (id, period, valid_from, quota) VALUES (%s, 'month', '-infinity', 0)",
            [BELA],
        )
    land(world, EVENTS, closes=END)
    publish_hours(world, "2026-10-31 18:00", END)

    def move_to_the_store() -> None:
        for path in world.lake.rglob("*"):
            if path.is_file():
                filesystem("s3").put_file(str(path), f"{place}/{path.relative_to(world.lake)}")

    move_to_the_store()
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres_url)
    monkeypatch.setenv("ANTENNA_LAKE", f"s3://{place}")
    day, month = {"dagster/partition": "2026-10-31"}, {"dagster/partition": "2026-10-01"}
    for events in (EVENTS, [*EVENTS, LATE]):
        before = bucket.objects().keys()
        execute("daily_usage", day)
        execute("monthly_usage", month)
        # No windows are left in scratch.
        assert bucket.objects().keys() == before
        oracle = oracle_days(events, "UTC", ZONES)
        with connect(postgres_url) as connection:
            assert stored_days(connection) == {key: of for key, of in oracle.items() if key[0].month == 10}
            over = connection.execute("SELECT id, sum_user_bytes FROM users_over_quota_1mo").fetchall()
            assert over == [(BELA, oracle[date(2026, 10, 31), BELA])]
            found = verify(connection, Lake(f"s3://{place}"), kept_since=datetime(2026, 10, 1, tzinfo=UTC))
            assert (found.periods, found.differences, found.pending) == (2, [], {})
        if events is EVENTS:
            # It lands where it was before, and its hour is published in the store.
            land(world, [LATE], closes=END)
            landed = world.lake / "landing"
            newest = max(landed.iterdir(), key=os.path.getmtime)
            for path in newest.rglob("*.parquet"):
                filesystem("s3").put_file(str(path), f"{place}/{path.relative_to(world.lake)}")
            execute("hourly_usage", {"dagster/partition": "2026-10-31-18:00"})
