"""Commits on top of the exact version of a Delta table that was loaded: never rebased (decision 3)."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.domain.hours import lake_partition
from antenna_assets.domain.lifetimes import require_young
from antenna_assets.domain.schema import HOUR_PARTITION
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.storage.paths import lake_path

if TYPE_CHECKING:
    from deltalake import DeltaTable, PostCommitHookProperties


class Conflict(Exception):
    """Another writer committed after the version that this commit was checked against."""


def commit(
    table: "DeltaTable",
    additions: Sequence[object],
    *,
    versions: Mapping[str, int],
    metadata: Mapping[str, str | int],
    removals: Sequence[object] = (),
) -> None:
    """Commit files as the version after the one that `table` has loaded.

    Args:
        additions: from `add_action`.
        versions: application transactions to set, by their key.
        metadata: for readers of the table's history.
        removals: from `remove_actions`.

    Raises:
        Conflict: `table` is no longer the newest version.
    """
    from deltalake import Transaction
    from deltalake.exceptions import CommitFailedError
    from deltalake.transaction import CommitProperties

    properties = CommitProperties(
        # The number of files tells a log that was cut between two lines from a whole one.
        custom_metadata={**metadata, "files": len(additions)},
        # A retry would move the commit onto a version that nobody has checked.
        max_commit_retries=0,
        app_transactions=[Transaction(key, version) for key, version in versions.items()],
    )
    try:
        table.create_write_transaction(
            [*removals, *additions],
            mode="append",
            schema=table.schema(),
            partition_by=list(HOUR_PARTITION),
            commit_properties=properties,
            post_commithook_properties=_no_hooks(),
        )
    except CommitFailedError as error:
        raise Conflict(str(error)) from error


def commit_empty(table: "DeltaTable", reason: str) -> None:
    """Commit a version with the same files. It may be rebased: it changes nothing."""
    from deltalake.transaction import CommitProperties

    table.create_write_transaction(
        [],
        mode="append",
        schema=table.schema(),
        partition_by=list(HOUR_PARTITION),
        commit_properties=CommitProperties(custom_metadata={"nothing": reason, "files": 0}),
        post_commithook_properties=_no_hooks(),
    )


def add_action(location: str, hour: datetime, file: WrittenFile) -> object:
    """Delta's action that adds a file to an hour of the table at `location`."""
    from deltalake.transaction import AddAction

    folder = location + "/"
    if not file.path.startswith(folder):
        raise ValueError(
            f"expected a file in {folder}, found {file.path}; write into a folder from new_folder()"
        )
    return AddAction(
        path=file.path.removeprefix(folder),  # deltalake percent-encodes it
        size=file.size,
        partition_values=partition_values(hour),
        modification_time=time.time_ns() // 10**6,
        data_change=True,
        stats=json.dumps({"numRecords": file.rows}),
    )


@dataclass(frozen=True)
class TableFile:
    """A file of a table: its path as the log has it, percent-encoded, its rows, and its size in bytes."""

    path: str
    rows: int
    size: int


def files_of(table: "DeltaTable", hours: Iterable[datetime]) -> dict[datetime, list[TableFile]]:
    """The files that a loaded table has of each of some hours."""
    found: dict[datetime, list[TableFile]] = {hour: [] for hour in hours}
    actions = pa.table(table.get_add_actions(flatten=True))
    if not actions.num_rows:
        return found
    # One number for an hour, so that the hours are looked up in one pass over all files.
    number: pa.ChunkedArray = pa.chunked_array([pa.repeat(pa.scalar(0, pa.int64()), actions.num_rows)])
    for name in HOUR_PARTITION:
        number = pc.add(pc.multiply(number, 100), actions[f"partition.{name}"].cast(pa.int64()))
    by_number = {_number(hour): hour for hour in found}
    wanted = pc.is_in(number, pa.array(by_number, pa.int64()))
    files = actions.select(["path", "num_records", "size_bytes"]).filter(wanted)
    columns = (column.to_pylist() for column in (number.filter(wanted), *files.columns))
    for of_hour, *file in zip(*columns, strict=True):
        found[by_number[of_hour]].append(TableFile(*file))
    return found


def _number(hour: datetime) -> int:
    number = 0
    for part in lake_partition(hour).values():
        number = number * 100 + part
    return number


def remove_actions(table: "DeltaTable", hours: Iterable[datetime]) -> list[object]:
    """Delta's actions that remove the files which a loaded table has of some hours."""
    from deltalake.transaction import RemoveAction

    now = time.time_ns() // 10**6
    return [
        RemoveAction(
            # deltalake percent-encodes it.
            path=unquote(file.path),
            data_change=True,
            deletion_timestamp=now,
            size=file.size,
            partition_values=partition_values(hour),
        )
        for hour, files in files_of(table, hours).items()
        for file in files
    ]


def require_young_files(files: Iterable[WrittenFile], now: datetime) -> None:
    """Stop before files are committed that a sweep may remove.

    Args:
        now: by the clock of the table's file system or store.

    Raises:
        AttemptTooOld: a file is older than any run may be.
    """
    for file in files:
        written = datetime.fromtimestamp(lake_path(file.path).stat().st_mtime, UTC)
        require_young(file.path, begun=written, now=now)


def partition_values(hour: datetime) -> dict[str, Any]:
    """The hour's partition as Delta writes it: all values are text."""
    return {name: str(value) for name, value in lake_partition(hour).items()}


def _no_hooks() -> "PostCommitHookProperties":
    """No checkpoint and no clean-up by deltalake: `delta.py` does both once the commit is synced."""
    from deltalake import PostCommitHookProperties

    return PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
