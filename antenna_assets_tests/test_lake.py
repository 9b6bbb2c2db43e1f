"""An hour of the lake is replaced as a whole, by the newest generation only, whoever else writes."""

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from antenna_assets.domain.schema import LANDED_SCHEMA
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.errors import Superseded
from antenna_assets.publishing import delta
from antenna_assets.publishing import lake as lake_module
from antenna_assets.publishing.delta import HourlyTable
from antenna_assets.publishing.delta_commit import Conflict
from antenna_assets.publishing.lake import (
    HourSnapshot,
    Lake,
    LakeBusy,
    LakeError,
    NotPublished,
    PublishedHour,
)

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
ELEVEN = TEN + timedelta(hours=1)


def files(
    lake: Lake, hour: datetime, generation: int, rows: int, name: str = "part-0.parquet"
) -> list[WrittenFile]:
    """A file of events at `hour`, as an engine writes it."""
    folder = Path(lake.new_folder("raw_parquet", hour, generation))
    folder.mkdir(parents=True)
    events = [
        dict(zip(LANDED_SCHEMA.names, (hour, "app", "u1", "x", generation, 0, offset), strict=True))
        for offset in range(rows)
    ]
    pq.write_table(pa.Table.from_pylist(events, schema=LANDED_SCHEMA), folder / name, compression="zstd")
    return [WrittenFile(str(folder / name), rows, (folder / name).stat().st_size)]


def publish(lake: Lake, hour: datetime, generation: int, rows: int, **options) -> int:
    return lake.replace_hour("raw_parquet", hour, generation, files(lake, hour, generation, rows), **options)


def content(lake: Lake) -> list[tuple]:
    """The table's rows by hour as another reader of Delta sees them: (hour, generation, rows)."""
    events = DeltaTable(lake.location("raw_parquet")).scan()
    found = duckdb.sql("SELECT hour, bytes, count(*) FROM events GROUP BY ALL ORDER BY ALL").fetchall()
    del events
    return found


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path / "the lake's"))


def test_an_hour_that_was_never_published_is_empty(lake):
    assert lake.hour("raw_parquet", TEN) == HourSnapshot(None, [], 0, {}, -1)
    publish(lake, TEN, 1, 3)
    assert lake.hour("raw_parquet", ELEVEN) == HourSnapshot(None, [], 0, {}, 1)


def test_a_published_hour_comes_back_from_one_version(lake):
    written = files(lake, TEN, 4, 3)
    version = lake.replace_hour("raw_parquet", TEN, 4, written, tags={"users_version": 7})
    paths = [file.path for file in written]
    assert lake.hour("raw_parquet", TEN) == HourSnapshot(4, paths, 3, {"users_version": 7}, version)
    assert pq.read_table(paths[0], partitioning=None).num_rows == 3
    assert content(lake) == [(10, 4, 3)]


def test_only_a_published_hour_can_be_built_on(lake):
    with pytest.raises(
        NotPublished, match="raw_parquet does not hold 2026-11-22-10:00 yet; materialize raw_parquet"
    ):
        lake.published_hour("raw_parquet", TEN)
    lake.replace_hour("raw_parquet", TEN, 2, [], tags={"users_version": 1})
    assert lake.published_hour("raw_parquet", TEN) == PublishedHour(2, [], {"users_version": 1})


def test_the_folder_of_an_attempt_is_laid_out_as_hive_does_and_never_named_twice(lake):
    one, other = (lake.new_folder("raw_parquet", TEN, 3) for _ in range(2))
    assert one.startswith(f"{lake.root}/raw_parquet/year=2026/month=11/day=22/hour=10/g3-")
    assert one != other


def test_other_readers_find_columns_partitions_and_types(lake):
    publish(lake, TEN, 1, 2)
    table = DeltaTable(lake.location("raw_parquet"))
    assert table.metadata().partition_columns == ["year", "month", "day", "hour"]
    schema = pa.schema(table.schema().to_arrow())
    assert schema.names == [*LANDED_SCHEMA.names, "year", "month", "day", "hour"]
    assert schema.field("timestamp").type == pa.timestamp("us", tz="UTC")
    assert not schema.field("bytes").nullable
    assert schema.field("hour").type == pa.int32()
    assert table.count() == 2


def test_the_same_generation_again_replaces_and_does_not_double(lake):
    publish(lake, TEN, 1, 3)
    publish(lake, TEN, 1, 3)
    assert content(lake) == [(10, 1, 3)]
    assert lake.hour("raw_parquet", TEN).rows == 3


def test_a_newer_generation_leaves_other_hours_untouched(lake):
    publish(lake, TEN, 1, 3)
    publish(lake, ELEVEN, 1, 5)
    before = lake.hour("raw_parquet", ELEVEN)
    publish(lake, TEN, 2, 4)
    assert content(lake) == [(10, 2, 4), (11, 1, 5)]
    assert lake.hour("raw_parquet", ELEVEN).files == before.files


def test_the_same_hour_of_another_day_is_another_hour(lake):
    publish(lake, TEN, 1, 3)
    publish(lake, TEN + timedelta(days=1), 2, 1)
    publish(lake, TEN + timedelta(days=31), 3, 1)
    assert content(lake) == [(10, 1, 3), (10, 2, 1), (10, 3, 1)]


def test_an_older_generation_is_superseded_and_changes_nothing(lake):
    publish(lake, TEN, 2, 3, tags={"users_version": 1})
    before = lake.hour("raw_parquet", TEN)
    with pytest.raises(
        Superseded, match=r"2026-11-22-10:00 holds generation 2; the older generation 1 was not"
    ) as error:
        publish(lake, TEN, 1, 9)
    assert error.value.newest == 2
    assert lake.hour("raw_parquet", TEN) == before
    assert Lake(lake.root).hour("raw_parquet", TEN) == before


def test_an_empty_hour_is_published_and_keeps_its_fence(lake):
    publish(lake, TEN, 1, 3)
    publish(lake, ELEVEN, 1, 5)
    version = lake.replace_hour("raw_parquet", TEN, 2, [], tags={"users_version": 3})
    assert lake.hour("raw_parquet", TEN) == HourSnapshot(2, [], 0, {"users_version": 3}, version)
    assert content(lake) == [(11, 1, 5)]
    with pytest.raises(Superseded):
        publish(lake, TEN, 1, 3)
    lake.replace_hour("raw_parquet", TEN, 2, [])
    assert content(lake) == [(11, 1, 5)]


def test_the_first_publication_of_a_table_can_be_empty(lake):
    assert lake.replace_hour("enriched_usage", TEN, 1, []) == 1
    assert lake.hour("enriched_usage", TEN) == HourSnapshot(1, [], 0, {}, 1)


def test_tags_belong_to_their_publication(lake):
    publish(lake, TEN, 1, 1, tags={"users_version": 9})
    publish(lake, ELEVEN, 1, 1, tags={"users_version": 10})
    publish(lake, TEN, 2, 1, tags={"users_version": 0})
    assert lake.hour("raw_parquet", TEN).tags == {"users_version": 0}
    publish(lake, TEN, 3, 1)
    assert lake.hour("raw_parquet", TEN).tags == {}
    assert lake.hour("raw_parquet", ELEVEN).tags == {"users_version": 10}
    with pytest.raises(ValueError, match="expected tags of users_version; found user_version"):
        publish(lake, TEN, 4, 1, tags={"user_version": 1})


def test_the_history_tells_every_restatement(lake):
    publish(lake, TEN, 1, 1, metadata={"run_id": "first"})
    publish(lake, TEN, 2, 1, metadata={"run_id": "second"})
    history = DeltaTable(lake.location("raw_parquet")).history()
    found = [(entry["hours"], entry["generations"], entry["run_id"]) for entry in history if "hours" in entry]
    assert found == [("2026-11-22-10:00", "2", "second"), ("2026-11-22-10:00", "1", "first")]


@pytest.mark.parametrize("folder", ["with space", "it's", "é漢 #?+&=", "a[1]*{b}"])
def test_paths_with_special_characters_work(tmp_path, folder):
    lake = Lake(str(tmp_path / folder))
    written = files(lake, TEN, 1, 3, name="p 0%20'é.parquet")
    lake.replace_hour("raw_parquet", TEN, 1, written)
    assert lake.hour("raw_parquet", TEN).files == [written[0].path]
    assert Path(written[0].path).exists()
    assert content(lake) == [(10, 1, 3)]


def test_a_root_that_deltalake_cannot_use_is_refused(tmp_path):
    with pytest.raises(LakeError, match=r"must not contain %, found .*a%20b; use another folder"):
        Lake(str(tmp_path / "a%20b"))
    with pytest.raises(LakeError, match=r"found s3://bucket/my lake; use another prefix"):
        Lake("s3://bucket/my lake")


def test_a_uri_keeps_its_form_and_a_file_uri_is_a_path(tmp_path):
    assert Lake("s3://bucket/lake/").location("raw_parquet") == "s3://bucket/lake/raw_parquet"
    assert Lake((tmp_path / "a b").as_uri()).root == str(tmp_path / "a b")


def test_a_root_that_cannot_be_written_says_what_to_check(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LakeError, match=r"raw_parquet cannot be created: .*check ANTENNA_LAKE"):
        Lake(str(tmp_path / "file")).replace_hour("raw_parquet", TEN, 1, [])


def test_a_file_from_elsewhere_is_refused(lake):
    stranger = WrittenFile("/tmp/elsewhere.parquet", 1, 1)
    with pytest.raises(
        ValueError, match=r"found /tmp/elsewhere\.parquet; write into a folder from new_folder"
    ):
        lake.replace_hour("raw_parquet", TEN, 1, [stranger])


def publish_from_a_process(root: str, number: int, gate, same_hour: bool) -> None:
    lake = Lake(root)
    written = files(lake, TEN if same_hour else TEN + timedelta(hours=number), 1, 3)
    gate.wait(60)
    lake.replace_hour("raw_parquet", TEN if same_hour else TEN + timedelta(hours=number), 1, written)


@pytest.mark.parametrize("same_hour", [True, False])
def test_processes_that_publish_first_at_once_leave_one_copy_of_each_hour(lake, same_hour):
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(4)
    processes = [
        context.Process(target=publish_from_a_process, args=(lake.root, number, gate, same_hour))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert content(lake) == [(10 + number, 1, 3) for number in range(1 if same_hour else 4)]


@pytest.mark.parametrize("shared", [True, False])
def test_threads_that_race_with_generations_leave_the_newest(lake, shared):
    def race(generation: int) -> str:
        try:
            publish(lake if shared else Lake(lake.root), TEN, generation, generation)
        except Superseded:
            return "superseded"
        return "published"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(race, [3, 1, 8, 5, 2, 7, 4, 6]))
    assert outcomes[2] == "published"
    assert content(lake) == [(10, 8, 8)]


def test_a_commit_from_a_stale_version_is_refused_even_for_another_hour(lake):
    publish(lake, TEN, 1, 1)
    table = HourlyTable(lake.location("raw_parquet"), LANDED_SCHEMA)
    stale = table.newest()
    publish(lake, ELEVEN, 1, 1)
    with pytest.raises(Conflict):
        table.replace(stale, {TEN: []}, {"2026-11-22-10:00": 2}, {})


def test_an_endless_race_ends_with_a_clear_error(lake, monkeypatch):
    publish(lake, TEN, 1, 1)
    monkeypatch.setattr(lake_module, "ATTEMPTS", 3)

    def always_late(*_):
        raise Conflict("a version too late")

    monkeypatch.setattr(HourlyTable, "replace", always_late)
    with pytest.raises(
        LakeBusy, match=r"2026-11-22-10:00: other writers committed first 3 times; run the hours again"
    ):
        publish(lake, TEN, 2, 1)


def test_a_commit_that_was_stored_but_reported_as_failed_is_not_repeated(lake, monkeypatch):
    replace = HourlyTable.replace

    def stored_then_failed(*arguments):
        replace(*arguments)
        raise Conflict("the answer was lost")

    publish(lake, TEN, 1, 1)
    monkeypatch.setattr(HourlyTable, "replace", stored_then_failed)
    assert publish(lake, TEN, 2, 3) == 2
    assert content(lake) == [(10, 2, 3)]


def test_a_lake_that_was_deleted_under_a_running_process_is_an_error_then_a_new_lake(lake):
    publish(lake, TEN, 5, 1)
    publish(lake, TEN, 6, 1)
    for path in sorted(Path(lake.root).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(LakeError, match="cannot be read"):
        lake.hour("raw_parquet", TEN)
    publish(lake, TEN, 1, 2)
    assert content(lake) == [(10, 1, 2)]


def test_the_log_is_checkpointed_by_itself_and_a_load_stays_fast(lake):
    for number in range(105):
        lake.replace_hour("raw_parquet", TEN + timedelta(hours=number), 1, [])
    log = Path(lake.location("raw_parquet"), "_delta_log")
    assert len(list(log.glob("*.checkpoint.parquet"))) == 1
    assert Lake(lake.root).hour("raw_parquet", TEN + timedelta(hours=104)).generation == 1


@pytest.fixture
def synced(monkeypatch):
    """What was brought to the disk, in order."""
    found = []
    monkeypatch.setattr(
        "os.fsync", lambda descriptor: found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
    )
    return found


def test_row_36_a_tables_creation_is_synced_with_all_that_leads_to_it(tmp_path, synced):
    lake = Lake(str(tmp_path / "a" / "b"))
    lake.replace_hour("raw_parquet", TEN, 1, [])
    table = tmp_path / "a" / "b" / "raw_parquet"
    log = table / "_delta_log"
    created = [log / f"{0:020}.json", log, table, table.parent]
    assert synced[: len(created)] == created
    assert {tmp_path / "a", tmp_path} <= set(synced)
    assert synced[-2:] == [log / f"{1:020}.json", log]


def test_the_commit_is_synced_before_it_is_reported(lake, synced):
    lake.replace_hour("raw_parquet", TEN, 1, [])
    synced.clear()
    version = lake.replace_hour("raw_parquet", TEN, 2, [])
    log = Path(lake.location("raw_parquet"), "_delta_log")
    # The one before it, too: it may be another writer's, who has not come to that yet.
    assert synced == [log / f"{version - 1:020}.json", log / f"{version:020}.json", log]


def test_row_36_a_checkpoint_is_synced_before_the_log_that_it_sums_up_may_go(lake, synced, monkeypatch):
    monkeypatch.setattr(delta, "CHECKPOINT_EVERY", 3)
    cleaned = []
    monkeypatch.setattr(DeltaTable, "cleanup_metadata", lambda _table: cleaned.append(list(synced)))
    for generation in (1, 2, 3):
        synced.clear()
        lake.replace_hour("raw_parquet", TEN, generation, [])
    log = Path(lake.location("raw_parquet"), "_delta_log")
    expected = [
        log / f"{2:020}.json",
        log / f"{3:020}.json",
        log,
        log / f"{3:020}.checkpoint.parquet",
        log / "_last_checkpoint",
        log,
    ]
    assert synced == expected
    assert cleaned == [expected]
    assert lake.hour("raw_parquet", TEN).generation == 3
    assert Lake(lake.root).hour("raw_parquet", TEN).generation == 3


def test_a_sweep_takes_what_no_version_needs_and_spares_what_is_young(lake):
    publish(lake, TEN, 1, 1)
    old, young = files(lake, ELEVEN, 1, 1)[0].path, files(lake, ELEVEN, 1, 1)[0].path
    kept = lake.hour("raw_parquet", TEN).files
    now = datetime.now(UTC)
    month_ago = time.time() - 30 * 86400
    for path in (old, *kept):
        os.utime(path, (month_ago, month_ago))
    assert [f"{lake.location('raw_parquet')}/{path}" for path in lake.sweep("raw_parquet", now=now)] == [old]
    assert not Path(old).exists()
    assert Path(young).exists()
    assert content(lake) == [(10, 1, 1)]
    assert Lake(lake.root + "2").sweep("raw_parquet", now=now) == {}


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=10))
def test_an_hour_is_always_its_newest_generation_as_it_was_published_last(tmp_path_factory, publications):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    expected: dict[int, tuple[int, int]] = {}
    for hour, generation, rows in publications:
        newest, _ = expected.get(hour, (0, 0))
        written = files(lake, TEN + timedelta(hours=hour), generation, rows) if rows else []
        if generation < newest:
            with pytest.raises(Superseded):
                lake.replace_hour("raw_parquet", TEN + timedelta(hours=hour), generation, written)
        else:
            lake.replace_hour("raw_parquet", TEN + timedelta(hours=hour), generation, written)
            expected[hour] = (generation, rows)
    assert content(lake) == [(10 + hour, *of) for hour, of in sorted(expected.items()) if of[1]]
