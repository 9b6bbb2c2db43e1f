"""The application transactions of a Delta table: what is read from its log is what deltalake says of each."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Transaction
from deltalake.transaction import CommitProperties
from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.publishing.delta_transactions import AppTransactions

KEYS = ("2026-11-22-10:00", "2026-11-22-10:00/attempt", "2026-11-22-11:00", "a key of others")


@pytest.fixture
def table(tmp_path: Path) -> DeltaTable:
    return created(tmp_path / "table")


def created(folder: Path) -> DeltaTable:
    return DeltaTable.create(str(folder), schema=pa.schema([pa.field("bytes", pa.int64())]))


def commit(table: DeltaTable, versions: dict[str, int]) -> None:
    table.create_write_transaction(
        [],
        mode="append",
        schema=table.schema(),
        commit_properties=CommitProperties(
            app_transactions=[Transaction(key, version) for key, version in versions.items()]
        ),
    )
    table.update_incremental()


def by_deltalake(table: DeltaTable) -> dict[str, int]:
    found = {key: table.transaction_version(key) for key in KEYS}
    return {key: version for key, version in found.items() if version is not None}


def log_of(table: DeltaTable) -> Path:
    return Path(table.table_uri.removeprefix("file://")) / "_delta_log"


def read(table: DeltaTable) -> dict[str, int]:
    return dict(AppTransactions(log_of(table).parent).at(table.version()))


changes = st.dictionaries(st.sampled_from(KEYS), st.integers(-1, 2**62), max_size=3)


@given(steps=st.lists(st.one_of(changes, st.just("checkpoint"), st.just("look")), max_size=8))
def test_what_is_read_at_once_is_what_deltalake_says_of_each_key(steps: list) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = created(Path(folder))
        kept = AppTransactions(Path(folder))
        for step in steps:
            if step == "checkpoint":
                table.create_checkpoint()
            elif step == "look":
                assert kept.at(table.version()) == by_deltalake(table)
            else:
                commit(table, step)
        assert kept.at(table.version()) == by_deltalake(table)
        assert read(table) == by_deltalake(table)


def test_the_commits_before_a_checkpoint_are_not_needed(table: DeltaTable) -> None:
    commit(table, {"2026-11-22-10:00": 1, "2026-11-22-11:00": 1})
    kept = AppTransactions(log_of(table).parent)
    kept.at(0)
    commit(table, {"2026-11-22-10:00": 2})
    table.create_checkpoint()
    for version in (0, 1):
        (log_of(table) / f"{version:020}.json").unlink()
    commit(table, {"2026-11-22-11:00": 7})

    assert read(table) == {"2026-11-22-10:00": 2, "2026-11-22-11:00": 7}
    assert kept.at(table.version()) == {"2026-11-22-10:00": 2, "2026-11-22-11:00": 7}


def test_a_version_is_read_without_what_came_after_it(table: DeltaTable) -> None:
    commit(table, {"2026-11-22-10:00": 1})
    commit(table, {"2026-11-22-10:00": 2, "2026-11-22-11:00": 1})
    table.create_checkpoint()

    kept = AppTransactions(log_of(table).parent)
    assert kept.at(2) == {"2026-11-22-10:00": 2, "2026-11-22-11:00": 1}
    assert kept.at(1) == {"2026-11-22-10:00": 1}
    assert kept.at(0) == {}


def test_a_checkpoint_that_is_torn_is_passed_over(table: DeltaTable) -> None:
    commit(table, {"2026-11-22-10:00": 1})
    table.create_checkpoint()
    commit(table, {"2026-11-22-10:00": 2})
    table.create_checkpoint()
    newest = log_of(table) / f"{2:020}.checkpoint.parquet"
    newest.write_bytes(newest.read_bytes()[:100])

    assert read(table) == {"2026-11-22-10:00": 2}


def test_a_commit_that_is_torn_is_named(table: DeltaTable) -> None:
    commit(table, {"2026-11-22-10:00": 1})
    commit(table, {"2026-11-22-10:00": 2})
    torn = log_of(table) / f"{1:020}.json"
    torn.write_bytes(torn.read_bytes()[:-5])

    with pytest.raises(OSError, match=r"00000000000000000001\.json is torn in line"):
        read(table)


def test_a_commit_that_is_missing_is_an_error(table: DeltaTable) -> None:
    commit(table, {"2026-11-22-10:00": 1})
    commit(table, {"2026-11-22-10:00": 2})
    (log_of(table) / f"{1:020}.json").unlink()

    with pytest.raises(FileNotFoundError):
        read(table)


def test_each_commit_is_read_once_however_often_and_late_it_is_asked_for(
    table: DeltaTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    whole = AppTransactions._whole
    monkeypatch.setattr(
        AppTransactions, "_whole", lambda self, version: (read.append(version), whole(self, version))[1]
    )
    kept = AppTransactions(log_of(table).parent)
    for number in range(4):
        commit(table, {"2026-11-22-10:00": number})
        for _ in range(3):
            assert kept.at(table.version()) == {"2026-11-22-10:00": number}

    assert read == [0, 1, 2, 3, 4]


def test_a_log_that_was_replaced_by_another_of_its_length_is_an_error(table: DeltaTable) -> None:
    commit(table, {"2026-11-22-10:00": 1})
    kept = AppTransactions(log_of(table).parent)
    kept.at(1)
    other = log_of(table) / f"{1:020}.json"
    other.write_bytes(other.read_bytes().replace(b"10:00", b"11:00"))

    with pytest.raises(OSError, match="was replaced by another log of the same length"):
        kept.at(1)


def test_a_log_that_is_gone_is_an_error(table: DeltaTable) -> None:
    commit(table, {"2026-11-22-10:00": 1})
    kept = AppTransactions(log_of(table).parent)
    kept.at(1)
    for path in log_of(table).iterdir():
        path.unlink()

    with pytest.raises(FileNotFoundError):
        kept.at(1)


def test_a_log_without_commits_is_read_from_its_checkpoint_again_and_again(table: DeltaTable) -> None:
    commit(table, {"2026-11-22-10:00": 1})
    table.create_checkpoint()
    for path in log_of(table).glob("*.json"):
        path.unlink()
    kept = AppTransactions(log_of(table).parent)

    assert [dict(kept.at(1)), dict(kept.at(1))] == [{"2026-11-22-10:00": 1}] * 2
