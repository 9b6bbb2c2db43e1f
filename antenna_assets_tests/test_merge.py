"""Merging small files: the merged one has their rows and nothing else changes, whoever reads, seals, sweeps or forgets."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg.pq import TransactionStatus

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.domain.lifetimes import GRACE_PERIOD, LONGEST_RUN, SAFE_AGE, AttemptTooOld
from antenna_assets.ledger import merge
from antenna_assets.ledger.files import files_of_hour, generation_files, rejected_files
from antenna_assets.ledger.lake_identity import WrongLake, adopt, require_own_lake
from antenna_assets.ledger.landing import landing_facts
from antenna_assets.ledger.merge import FilesChanged, SmallFile, files_to_merge, small_files
from antenna_assets.ledger.reopen import reopen
from antenna_assets.ledger.seal import seal
from antenna_assets.operations.forget import lake_search, run
from antenna_assets.operations.forget.lake_search import LakeSearch
from antenna_assets.operations.forget.run import FILES_UNDER_LOCK, NotForgotten, forget
from antenna_assets.operations.quarantine.messages import Selection, find, select
from antenna_assets.operations.sweep import compaction, retention
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.publishing.lake import Lake
from antenna_assets.storage.attempt import FilesGone, LandingError
from antenna_assets.streaming import merge_files, merger
from antenna_assets.streaming.merge_files import Merged, merge_some
from antenna_assets.streaming.merger import Merger
from antenna_assets.verify.run import verify
from antenna_assets_tests import certified
from antenna_assets_tests.certified import FIRST, KNOWN, Land, World, publish
from antenna_assets_tests.test_sweep import age

services = pytest.mark.services
OPEN = hour_of(datetime.now(UTC))
"""An hour that no batch of these tests closes."""

MINUTE = timedelta(minutes=1)


def small(path: str, batch: int, **others: object) -> SmallFile:
    values = {
        "rows": 10,
        "bytes": 100,
        "size": 1_000,
        "hour": FIRST,
        "read": None,
        "topic_id": "id",
        "merges": 0,
    }
    return SmallFile(path=path, batch=batch, **{**values, "late": False, "passed": False, **others})  # type: ignore[arg-type]


def test_files_are_merged_once_there_are_enough_of_a_kind() -> None:
    files = [small(f"f{number}", number) for number in range(32)]
    assert files_to_merge(files) == files
    assert files_to_merge(files[:-1]) == []
    late = [small("late", 99, late=True)]
    assert files_to_merge([*files[:-1], *late]) == []
    again = [small(f"m{number}", number, merges=1) for number in range(8)]
    assert files_to_merge([*files[:-1], *again]) == again
    assert files_to_merge([*again, *files]) == files


def test_what_is_merged_at_once_fits_in_memory() -> None:
    large = [small(f"f{number}", number, size=2**20 - 1) for number in range(32)]
    assert files_to_merge(large) == large[:8]
    many = [small(f"f{number}", number, rows=49_999) for number in range(32)]
    assert files_to_merge(many) == many[:8]
    # A rejected message may be large in a small file; the bytes of events are no size.
    spaces = [small(f"f{number}", number, bytes=2**20 - 1) for number in range(32)]
    assert files_to_merge(spaces) == spaces
    rejected = [small(f"f{number}", number, bytes=2**20 - 1, hour=None, read=FIRST) for number in range(32)]
    assert files_to_merge(rejected) == rejected[:8]


def test_no_row_is_written_again_more_than_three_times_and_few_files_are_left() -> None:
    """12,000 batches, one after the other: the files that are left, and how often each row was merged."""
    files: list[SmallFile] = []
    written = merges = most = 0
    for batch in range(1, 12_001):
        files.append(small(f"f{batch}", batch, rows=60, size=8_000))
        while chosen := files_to_merge(
            [one for one in files if one.merges < 3 and one.size < merge.SMALL_BYTES]
        ):
            merges += 1
            written += sum(one.rows for one in chosen)
            rows, size = sum(one.rows for one in chosen), sum(one.rows for one in chosen) * 20
            files = [one for one in files if one not in chosen]
            files.append(small(f"m{batch}", batch, rows=rows, size=size, merges=chosen[0].merges + 1))
            files.sort(key=lambda one: one.batch)
        most = max(most, len(files))
    assert sum(one.rows for one in files) == 720_000
    assert most <= 60
    assert written <= 3 * 720_000
    assert merges <= 430


@pytest.fixture
def land(connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Land:
    """An empty lake. Three files are enough to merge, and two merged ones."""
    monkeypatch.setattr(merge, "FILES_PER_MERGE", (3, 2, 2))
    monkeypatch.setattr(merger, "FILES_PER_MERGE", (3, 2, 2))
    lake = tmp_path / "lake"
    lake.mkdir()
    require_own_lake(connection, str(lake))
    return Land(connection, lake, seed=1)


def close(land: Land) -> None:
    """Close the hours before the last one by a batch that has none of their rows."""
    land({FIRST + 3 * HOUR: 1}, newest=FIRST + 4 * HOUR)


def rows_in(lake: Path, paths: list[str]) -> list[tuple]:
    found = [tuple(row.values()) for path in paths for row in pq.ParquetFile(lake / path).read().to_pylist()]
    return sorted(found, key=lambda row: row[-2:])


def rows_of(land: Land, hour: datetime) -> list[tuple]:
    return rows_in(land.lake, [file.path for file in files_of_hour(land.connection, hour)])


def merge_all(land: Land, hour: datetime | None) -> int:
    """How many merges there were to do."""
    count = 0
    while merge_some(land.connection, str(land.lake), hour):
        count += 1
    return count


def replaced(connection: psycopg.Connection) -> list[str]:
    return [
        path
        for (path,) in connection.execute("SELECT path FROM ledger.replaced_file WHERE merged ORDER BY 1")
    ]


@services
def test_small_files_become_one_with_exactly_their_rows(land: Land) -> None:
    for count in (3, 4, 5):
        land({OPEN: count, OPEN - HOUR: 1})
    before = files_of_hour(land.connection, OPEN)
    rows, other = rows_of(land, OPEN), files_of_hour(land.connection, OPEN - HOUR)
    kept = ledger(land.connection)
    assert merge_some(land.connection, str(land.lake), OPEN) == Merged(3, 12)
    (file,) = files_of_hour(land.connection, OPEN)
    assert rows_of(land, OPEN) == rows
    assert (file.rows, file.bytes) == (12, sum(one.bytes for one in before))
    assert file.size == (land.lake / file.path).stat().st_size
    assert (file.batch, file.batches) == (3, [1, 2, 3])
    assert file.path.startswith("landing/3-")
    assert replaced(land.connection) == sorted(one.path for one in before)
    assert all((land.lake / one.path).exists() for one in before)
    assert files_of_hour(land.connection, OPEN - HOUR) == other
    assert ledger(land.connection) == kept
    assert merge_some(land.connection, str(land.lake), OPEN) is None


def ledger(connection: psycopg.Connection) -> dict[str, list[tuple]]:
    """What no merge changes."""
    return {
        table: connection.execute(f"SELECT * FROM ledger.{table} ORDER BY 1, 2, 3".encode()).fetchall()  # noqa: S608
        for table in ("batch", "batch_offset", "rejection", "hour", "hour_generation", "replayed")
    }


@services
def test_merged_files_are_merged_again_and_name_all_of_their_batches(land: Land) -> None:
    for _ in range(6):
        land({OPEN: 2})
        merge_all(land, OPEN)
    land({OPEN: 2})
    found = files_of_hour(land.connection, OPEN)
    assert [(file.batch, file.batches, file.rows) for file in found] == [
        (6, [1, 2, 3, 4, 5, 6], 12),
        (7, [7], 2),
    ]
    assert land.connection.execute("SELECT merges FROM ledger.head").fetchone() == (3,)


@services
def test_a_merged_file_names_only_batches_that_have_rows_in_it(land: Land) -> None:
    land({OPEN: 2})
    land({OPEN - HOUR: 2})
    land({OPEN: 2})
    land({OPEN: 2})
    before = landing_facts(land.connection, OPEN, 4)
    assert merge_all(land, OPEN) == 1
    assert files_of_hour(land.connection, OPEN)[0].batches == [1, 3, 4]
    after = landing_facts(land.connection, OPEN, 4)
    assert before["landed"].pop("files") == 3
    assert after["landed"].pop("files") == 1
    assert after == before


@services
def test_rejected_files_are_merged_as_well(land: Land) -> None:
    for number in range(3):
        land({OPEN: 1}, rejected=["not_json"] * number + ["blank"])
    before = [file.path for file in rejected_files(land.connection, [1, 2, 3])]
    rows = rows_in(land.lake, before)
    assert merge_some(land.connection, str(land.lake), None) == Merged(3, 6)
    (file,) = rejected_files(land.connection, [2])
    assert file.batches == [1, 2, 3]
    assert rows_in(land.lake, [file.path]) == rows
    assert rejected_files(land.connection, [4]) == []


@services
def test_files_of_a_sealed_generation_are_never_merged(land: Land) -> None:
    for _ in range(4):
        land({FIRST: 2})
    close(land)
    sealed = seal(land.connection, FIRST)
    files = generation_files(land.connection, sealed)
    assert merge_all(land, FIRST) == 0
    for _ in range(2):
        land({FIRST: 1})
    assert merge_all(land, FIRST) == 0
    land({FIRST: 1})
    assert merge_all(land, FIRST) == 1
    assert generation_files(land.connection, sealed) == files
    assert seal(land.connection, FIRST).up_to_batch == 8
    assert generation_files(land.connection, sealed) == files
    assert merge_all(land, FIRST) == 0


@services
def test_rows_from_before_and_after_an_hour_closed_stay_apart(land: Land) -> None:
    for _ in range(2):
        land({FIRST: 1})
    land({FIRST: 1}, newest=FIRST + 3 * HOUR)
    for _ in range(2):
        land({FIRST: 1})
    late = landing_facts(land.connection, FIRST, 5)["landed"]["late_rows"]
    assert merge_all(land, FIRST) == 0
    land({FIRST: 1})
    assert merge_all(land, FIRST) == 1
    assert landing_facts(land.connection, FIRST, 6)["landed"]["late_rows"] == late + 1


def between(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act once a merged file is written and before its transaction."""
    written = merge_files.write_merged

    def write_and_act(*arguments: object) -> object:
        found = written(*arguments)  # type: ignore[arg-type]
        act()
        return found

    monkeypatch.setattr(merge_files, "write_merged", write_and_act)


@services
def test_a_merge_that_a_seal_overtakes_changes_nothing(land: Land, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        land({FIRST: 1})
    close(land)
    before = files_of_hour(land.connection, FIRST)
    between(monkeypatch, lambda: seal(land.connection, FIRST))
    with pytest.raises(FilesChanged, match="3 small files of .* are no longer to be merged"):
        merge_some(land.connection, str(land.lake), FIRST)
    assert files_of_hour(land.connection, FIRST) == before
    assert sorted(path.name.split("-")[0] for path in (land.lake / "landing").iterdir()) == [
        "1",
        "2",
        "3",
        "4",
    ]


@services
def test_a_seal_waits_for_a_merge_in_its_transaction(
    land: Land, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        land({FIRST: 1})
    close(land)
    found = []

    def seal_meanwhile() -> None:
        with connect(postgres_url) as other:
            found.append(generation_files(other, seal(other, FIRST)))

    def at(point: str) -> None:
        if point == "stream.merge.last_statement":
            sealing.start()
            sealing.join(0.5)
            assert sealing.is_alive()

    sealing = threading.Thread(target=seal_meanwhile)
    monkeypatch.setattr(merge, "commit_point", at)
    assert merge_all(land, FIRST) == 1
    sealing.join(20)
    assert found == [[file.path for file in files_of_hour(land.connection, FIRST)]]


@services
def test_two_merges_of_the_same_files_leave_one(land: Land, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        land({OPEN: 1})
    rows, write = rows_of(land, OPEN), merge_files.write_merged

    def faster() -> None:
        monkeypatch.setattr(merge_files, "write_merged", write)
        assert merge_some(land.connection, str(land.lake), OPEN) == Merged(3, 3)

    between(monkeypatch, faster)
    with pytest.raises(FilesChanged):
        merge_some(land.connection, str(land.lake), OPEN)
    assert len(files_of_hour(land.connection, OPEN)) == 1
    assert rows_of(land, OPEN) == rows


@services
def test_a_merged_file_that_is_gone_or_too_old_is_not_committed(
    land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        land({OPEN: 1})
    before = files_of_hour(land.connection, OPEN)

    def remove() -> None:
        for path in land.lake.rglob("merged.parquet"):
            path.unlink()

    with monkeypatch.context() as patch:
        between(patch, remove)
        with pytest.raises(FilesGone):
            merge_some(land.connection, str(land.lake), OPEN)
    with monkeypatch.context() as patch:
        patch.setattr(merge_files, "host_now", lambda: datetime.now(UTC) - LONGEST_RUN - MINUTE)
        with pytest.raises(AttemptTooOld):
            merge_some(land.connection, str(land.lake), OPEN)
    assert files_of_hour(land.connection, OPEN) == before
    assert not [*land.lake.rglob("merged.parquet")]


@services
def test_nothing_is_merged_into_a_lake_that_is_not_the_ledgers_by_now(
    land: Land, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        land({OPEN: 1})
    before = files_of_hour(land.connection, OPEN)
    (tmp_path / "other").mkdir()
    between(monkeypatch, lambda: adopt(land.connection, str(tmp_path / "other")))
    with pytest.raises(WrongLake):
        merge_some(land.connection, str(land.lake), OPEN)
    assert files_of_hour(land.connection, OPEN) == before


@services
@pytest.mark.parametrize("harm", ["a row less", "other bytes", "a row twice", "no file"])
def test_files_that_are_not_what_the_ledger_says_are_not_merged(land: Land, harm: str) -> None:
    for _ in range(3):
        land({OPEN: 2})
    files = files_of_hour(land.connection, OPEN)
    path = land.lake / files[1].path
    table = pq.ParquetFile(path).read()
    if harm == "a row less":
        pq.write_table(table[:1], path)
    elif harm == "other bytes":
        land.connection.execute("UPDATE ledger.file SET bytes = bytes + 1 WHERE path = %s", [files[1].path])
    elif harm == "a row twice":
        table = pq.ParquetFile(land.lake / files[0].path).read()
        pq.write_table(table, path)
        land.connection.execute(
            "UPDATE ledger.file SET bytes = %s WHERE path = %s", [files[0].bytes, files[1].path]
        )
    else:
        path.unlink()
    before = files_of_hour(land.connection, OPEN)
    with pytest.raises(LandingError):
        merge_some(land.connection, str(land.lake), OPEN)
    assert files_of_hour(land.connection, OPEN) == before
    assert not [*land.lake.rglob("merged.parquet")]


@services
def test_late_rows_that_were_merged_are_as_old_as_the_first_of_them(land: Land) -> None:
    land({FIRST: 5}, newest=FIRST + 3 * HOUR)
    seal(land.connection, FIRST)
    for _ in range(3):
        land({FIRST: 1})
    since = "SELECT ledger.rows_since(%s, 1)"
    before = land.connection.execute(since, [FIRST]).fetchone()
    assert merge_all(land, FIRST) == 1
    assert land.connection.execute(since, [FIRST]).fetchone() == before


@services
def test_replaced_files_stay_for_a_grace_period_and_are_swept_then(
    land: Land, postgres_url: str, tmp_path: Path
) -> None:
    for _ in range(3):
        land({OPEN: 1}, rejected=["blank"])
    small_ones = [land.lake / file.path for file in files_of_hour(land.connection, OPEN)]
    # As old as files get before a trickle of late rows fills a merge.
    age(land.lake / "landing", SAFE_AGE + HOUR, now=datetime.now(UTC))
    assert merge_all(land, OPEN) == 1
    (merged,) = files_of_hour(land.connection, OPEN)

    def run(later: timedelta) -> None:
        now = datetime.now(UTC) + later
        sweep(postgres_url, str(land.lake), dagster_home=tmp_path, horizon=timedelta(days=35), now=now)

    run(timedelta(0))
    run(GRACE_PERIOD - MINUTE)
    assert all(path.exists() for path in small_ones)
    # The ledger's last write keeps what is younger than it, by the clock of the files.
    land({OPEN: 1})
    run(GRACE_PERIOD + MINUTE)
    assert not any(path.exists() for path in small_ones)
    assert (land.lake / merged.path).exists()
    assert len(rejected_files(land.connection, [1, 2, 3])) == 3
    assert all((land.lake / file.path).exists() for file in rejected_files(land.connection, [1, 2, 3]))
    run(2 * GRACE_PERIOD + MINUTE)
    assert replaced(land.connection) == []


@services
def test_batches_of_a_merged_file_are_kept_apart_as_long_as_it(land: Land) -> None:
    for _ in range(5):
        land({OPEN: 1}, rejected=["blank"])
    assert merge_all(land, OPEN) + merge_all(land, None) == 2
    connection = land.connection
    # The files of the newest two go first.
    connection.execute("UPDATE ledger.batch SET committed_at = committed_at - interval '40 days'")
    far = {"horizon": timedelta(days=35), "now": datetime.now(UTC)}
    assert compaction.merge_batches(connection, **far).count == 0
    with connection.transaction():
        retention._expire(connection, retention._OF_HOURS, [OPEN], datetime.now(UTC))
    kept = connection.execute("SELECT batches::text FROM ledger.expired_file ORDER BY batch").fetchall()
    assert kept == [("{[1,6)}",)]
    connection.execute("DELETE FROM ledger.file")
    assert compaction.merge_batches(connection, **far).count == 0
    connection.execute("DELETE FROM ledger.expired_file")
    assert compaction.merge_batches(connection, **far).count == 4


@services
def test_the_quarantine_is_the_same_after_a_merge(land: Land) -> None:
    for number in range(4):
        land({OPEN: 1}, rejected=["not_json"] * number + ["blank"])
    lake = str(land.lake)
    selections = [
        Selection(),
        Selection(reasons=["not_json"]),
        Selection(first_batch=2),
        Selection(last_batch=2),
        Selection(first_batch=2, last_batch=3, limit=3),
        Selection(first_batch=5),
    ]
    places = [(0, row["kafka_offset"]) for row in select(land.connection, lake, Selection()).to_pylist()]

    def seen() -> list:
        found = [select(land.connection, lake, selection).to_pylist() for selection in selections]
        return [*found, *(find(land.connection, lake, *place) for place in places)]

    before = seen()
    assert [row["batch"] for row in before[0]] == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert merge_all(land, None) == 1
    assert seen() == before


@services
def test_an_hour_is_certified_and_verified_across_merges_and_the_next_generation(
    postgres_url: str, land: Land
) -> None:
    world = World(postgres_url, land.lake)
    for number in range(7):
        land({FIRST: 3, FIRST + HOUR: 1}, rejected=["blank"] * (number % 2))
        merge_all(land, FIRST)
    close(land)
    publish(world, [FIRST, FIRST + HOUR])
    assert what_verify_finds(land) == ([], {})
    for _ in range(3):
        land({FIRST: 2}, rejected=["not_json"])
    assert merge_all(land, FIRST) == 1
    # Of the rejected ones, those of certified batches with those of later ones.
    assert merge_all(land, None) == 1
    differences, pending = what_verify_finds(land)
    assert differences == []
    assert [*pending.values()] == ["dirty: generation 1 is without 6 late rows"]
    publish(world, [FIRST])
    assert what_verify_finds(land) == ([], {})
    (merged,) = rejected_files(land.connection, [8, 9])[:1]
    (land.lake / merged.path).unlink()
    found = [one.what for one in verified(land).differences]
    assert found[0] == f"file {merged.path}"
    assert {one.split(",")[0] for one in found[1:]} == {"rejected messages in the files"}


def verified(land: Land):  # type: ignore[no-untyped-def]
    return verify(land.connection, Lake(str(land.lake)), end=FIRST + 2 * HOUR, kept_since=FIRST)


def what_verify_finds(land: Land) -> tuple[list[str], dict[str, str]]:
    found = verified(land)
    return [*map(str, found.differences)], found.pending


@services
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("rows = rows + 1", "rows"),
        ("batches = batches - '{[2,3)}'", "landed rows outside the offsets of their batch"),
    ],
)
def test_verify_finds_what_is_wrong_with_a_merged_file(
    postgres_url: str, land: Land, change: str, found: str
) -> None:
    for _ in range(3):
        land({FIRST: 3})
    assert merge_all(land, FIRST) == 1
    close(land)
    publish(World(postgres_url, land.lake), [FIRST, FIRST + HOUR])
    assert what_verify_finds(land) == ([], {})
    land.connection.execute(f"UPDATE ledger.file SET {change} WHERE merges > 0".encode())  # noqa: S608
    assert found in "\n".join(what_verify_finds(land)[0])


@services
def test_a_forgotten_user_is_in_no_file_that_was_merged(postgres_url: str, land: Land) -> None:
    world, user = World(postgres_url, land.lake), KNOWN[2]
    for _ in range(4):
        land({FIRST: 30, OPEN: 30})
    assert merge_all(land, FIRST) + merge_all(land, OPEN) == 2
    close(land)
    publish(world, [FIRST, FIRST + HOUR])
    other = land.lake / replaced(land.connection)[0]
    table = pq.ParquetFile(other).read()
    other.unlink()
    pq.write_table(table.filter([one != user for one in table["id"].to_pylist()]), other)
    forget(land.connection, Lake(str(land.lake)), user, say=lambda _line: None)
    for path in land.lake.rglob("landing/**/*.parquet"):
        assert user not in pq.ParquetFile(path).read(["id"])["id"].to_pylist()
    assert what_verify_finds(land) == ([], {})
    # What has its readers and not the user stays for them.
    assert other.exists()


@services
def test_a_user_is_forgotten_while_the_stream_merges(
    postgres_url: str, land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the search and the swap, the files with the user become another one."""
    user = KNOWN[2]
    for _ in range(3):
        land({OPEN: 30})
    rows = len(rows_of(land, OPEN))
    write, merges = run._Work._rewrite, []

    def rewrite_while_merging(work: run._Work, paths: list[str]) -> list:
        found = write(work, paths)
        if not merges:
            with connect(postgres_url) as other:
                merges.append(merge_some(other, str(land.lake), OPEN))
        return found

    monkeypatch.setattr(run._Work, "_rewrite", rewrite_while_merging)
    monkeypatch.setattr(run, "ROUNDS", 1)
    forget(land.connection, Lake(str(land.lake)), user, say=lambda _line: None)
    assert merges == [Merged(3, 90)]
    assert len(rows_of(land, OPEN)) == rows
    for path in land.lake.rglob("landing/**/*.parquet"):
        assert user not in pq.ParquetFile(path).read(["id"])["id"].to_pylist()


def land_after_each_listing(monkeypatch: pytest.MonkeyPatch, land_some: Callable[[], None]) -> None:
    """Land something once the files to search are listed, whenever the ledger is not locked."""

    def files_after(connection: psycopg.Connection, batch: int) -> list[str]:
        paths = lake_search.files_after(connection, batch)
        if connection.info.transaction_status == TransactionStatus.IDLE:
            land_some()
        return paths

    monkeypatch.setattr(run, "files_after", files_after)


@services
@pytest.mark.parametrize(
    ("landing", "users", "searches"),
    [
        # Under the lock so many files are searched, in which nothing has to be rewritten.
        pytest.param([1, 1, 1], KNOWN[:2], 1, id="others"),
        pytest.param(
            [FILES_UNDER_LOCK, 1, 1], KNOWN[:2], 1, id="as many files as are searched under the lock"
        ),
        pytest.param([FILES_UNDER_LOCK + 1, FILES_UNDER_LOCK + 1, 1], KNOWN[:2], 3, id="more files"),
        pytest.param([1, 2, 0, 1], [KNOWN[2]], 3, id="the user"),
    ],
)
def test_a_user_is_forgotten_while_the_stream_commits_during_each_search(
    land: Land, monkeypatch: pytest.MonkeyPatch, landing: list[int], users: list[str], searches: int
) -> None:
    user, left = KNOWN[2], list(landing)

    def land_some() -> None:
        with monkeypatch.context() as only:
            only.setattr(certified, "USERS", users)
            for _ in range(left.pop(0) if left else 0):
                land({OPEN: 2})

    land({OPEN: 30})
    land_after_each_listing(monkeypatch, land_some)
    monkeypatch.setattr(run, "ROUNDS", 1)
    forget(land.connection, Lake(str(land.lake)), user, say=lambda _line: None)
    assert len(left) == len(landing) - searches
    assert len(rows_of(land, OPEN)) == 30 + 2 * sum(landing[:searches])
    for path in land.lake.rglob("landing/**/*.parquet"):
        assert user not in pq.ParquetFile(path).read(["id"])["id"].to_pylist()


@services
@pytest.mark.parametrize(("limit", "value"), [("MESSAGES_UNDER_LOCK", 1), ("BYTES_UNDER_LOCK", 1)])
def test_many_rejected_messages_that_landed_meanwhile_are_not_judged_under_the_lock(
    land: Land, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    landed = [["blank", "blank"], ["blank"], ["blank"]]
    of, judged = LakeSearch.of, []

    def search(own: LakeSearch, paths: list[str]) -> list[str]:
        locked = land.connection.info.transaction_status != TransactionStatus.IDLE
        judged.append((len(paths), locked))
        return of(own, paths)

    land({OPEN: 30})
    monkeypatch.setattr(run, limit, value)
    monkeypatch.setattr(LakeSearch, "of", search)
    land_after_each_listing(monkeypatch, lambda: land({}, rejected=landed.pop(0), newest=OPEN))
    forget(land.connection, Lake(str(land.lake)), KNOWN[2], say=lambda _line: None)
    assert judged == [(1, False), (1, False), (1, True)]


@services
def test_a_user_who_keeps_sending_is_not_forgotten_and_the_error_says_so(
    land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certified, "USERS", [KNOWN[2]])
    land_after_each_listing(monkeypatch, lambda: land({OPEN: 1}))
    monkeypatch.setattr(run, "CATCH_UPS", 3)
    with pytest.raises(
        NotForgotten, match="events of the user, or more files than can be searched meanwhile, kept landing"
    ):
        forget(land.connection, Lake(str(land.lake)), KNOWN[2], say=lambda _line: None)
    assert len(rows_of(land, OPEN)) == 3


@services
def test_a_merge_of_files_that_were_rewritten_meanwhile_changes_nothing(
    land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        land({OPEN: 30})

    path = files_of_hour(land.connection, OPEN)[1].path
    rewritten = "UPDATE ledger.file SET path = %s WHERE path = %s"
    between(monkeypatch, lambda: land.connection.execute(rewritten, [f"{path}/new", path]))
    with pytest.raises(FilesChanged):
        merge_some(land.connection, str(land.lake), OPEN)
    assert not [*land.lake.rglob("merged.parquet")]


@services
def test_an_hour_that_is_opened_again_goes_on_merging(land: Land) -> None:
    for _ in range(3):
        land({FIRST: 1})
    assert merge_all(land, FIRST) == 1
    land({FIRST: 1}, newest=FIRST + 3 * HOUR)
    for _ in range(2):
        land({FIRST: 1})
    reopen(land.connection, "devices", FIRST, horizon=timedelta(days=35), reason="a test")
    land({FIRST: 1})
    # Once the hour is open no row is late; which batches the wrong clock had passed still tells them apart.
    assert merge_all(land, FIRST) == 1
    land({FIRST: 1}, newest=FIRST + 3 * HOUR)
    sealed = seal(land.connection, FIRST)
    assert (sealed.rows, sealed.up_to_batch) == (8, 8)
    assert len(rows_in(land.lake, generation_files(land.connection, sealed))) == 8


@services
def test_rows_of_a_replay_are_not_merged(land: Land) -> None:
    for _ in range(3):
        land({OPEN: 1})
    land.connection.execute("UPDATE ledger.batch SET kind = 'replay' WHERE batch = 2")
    assert [file.batch for file in small_files(land.connection, OPEN)] == [1, 3]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def running(land: Land, postgres_url: str, said: list[str]) -> Iterator[Merger]:
    found = Merger(str(land.lake), postgres_url, said.append)
    with found.running(land.connection):
        yield found


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@services
def test_a_running_stream_merges_what_lands(land: Land, running: Merger) -> None:
    for _ in range(3):
        land({OPEN: 1}, rejected=["blank"])
        running.landed([OPEN, None])
    until(lambda: len(files_of_hour(land.connection, OPEN)) == 1)
    until(lambda: len(rejected_files(land.connection, [1, 2, 3])) == 1)


@services
def test_a_stream_that_starts_merges_what_landed_before_it(
    land: Land, postgres_url: str, said: list[str]
) -> None:
    for _ in range(2):
        land({OPEN: 1})
    with Merger(str(land.lake), postgres_url, said.append).running(land.connection):
        pass
    assert len(files_of_hour(land.connection, OPEN)) == 2
    merging = Merger(str(land.lake), postgres_url, said.append)
    with merging.running(land.connection):
        land({OPEN: 1})
        merging.landed([OPEN])
        until(lambda: len(files_of_hour(land.connection, OPEN)) == 1)
    assert said == []


@services
def test_a_stream_that_cannot_merge_says_so_once_and_goes_on(
    land: Land, running: Merger, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merger, "RETRY_SECONDS", 0.01)
    for _ in range(3):
        land({OPEN: 1, OPEN - HOUR: 1})
    (land.lake / files_of_hour(land.connection, OPEN)[0].path).unlink()
    running.landed([OPEN] * 3)
    until(lambda: len(said) == 1)
    running.landed([OPEN] * 3)
    running.landed([OPEN - HOUR] * 3)
    until(lambda: len(files_of_hour(land.connection, OPEN - HOUR)) == 1)
    assert len(said) == 1
    assert "but there is no such file" in said[0]
    assert said[0].endswith("the stream goes on")
