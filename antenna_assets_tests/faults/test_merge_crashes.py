"""proofs.md, row 1: the stream is killed in a merge of small files at each of its points, and nothing is lost or doubled."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings
from antenna_assets.verify.run import verify
from antenna_assets_tests.end_to_end.runs import instance, publish_what_the_sensor_asks_for
from antenna_assets_tests.exactness import assert_exact, assert_whole
from antenna_assets_tests.faults import merging_stream
from antenna_assets_tests.faults.runs import crash, finish, send

pytestmark = pytest.mark.services

POINTS = {
    "stream.merge.before_write",
    "stream.merge.after_sync",
    "stream.merge.last_statement",
    "stream.merge.committed",
}


def merged(settings: Settings) -> int:
    with psycopg.connect(settings.postgres_url or "") as connection:
        return connection.execute("SELECT count(*) FROM ledger.file WHERE merges > 0").fetchall()[0][0]


@pytest.mark.parametrize("point", sorted(POINTS))
def test_row_1_killed_in_a_merge_the_ledger_and_the_lake_are_exact(
    settings: Settings,
    tmp_path: Path,
    point: str,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    answers = tmp_path / "answers.json"
    rounds = 3 if proving else 1
    for seed in range(rounds):
        send(settings, answers, seed=seed, events=400)
        # Of landed files, then of what is merged already.
        for passage in (1, 2):
            crash(settings, merging_stream.MODULE, f"{point}:{passage}")
            assert_whole(settings)
        finish(settings, merging_stream.MODULE)
        assert_exact(settings, answers)
        assert merged(settings) > 0
    record_property("kills", 2 * rounds)


def test_hours_of_merged_files_are_published_exactly_and_late_rows_join_them(
    settings: Settings, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    first = send(settings, answers, seed=1, events=400)
    merging_stream.read_everything(settings)
    assert merged(settings) > 0
    with instance() as dagster:
        assert publish_what_the_sensor_asks_for(dagster) >= 1
        assert_exact(settings, answers, published=True)
        send(settings, answers, seed=2, events=400, start=first)
        merging_stream.read_everything(settings)
        publish_what_the_sensor_asks_for(dagster)
    assert_exact(settings, answers, published=True)
    with connect(settings.postgres_url or "") as connection:
        found = verify(connection, Lake(settings.lake_uri), kept_since=hour_of(first) - HOUR)
    assert (found.differences, found.pending) == ([], {})
