"""Merging small files into one: writing it, reading it back, and replacing the small ones in the ledger.

The file is written before the ledger's lock is taken; under the lock only rows change (`ledger/merge.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from antenna_assets.clients.clock import host_now
from antenna_assets.domain.counted import counted
from antenna_assets.domain.landing import LANDING_FORMAT, REJECTED_FOLDER
from antenna_assets.domain.schema import COORDINATES, LANDED_SCHEMA, REJECTED_SCHEMA
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.batch import AttemptFile
from antenna_assets.ledger.merge import SmallFile, commit_merge, files_to_merge, small_files
from antenna_assets.storage.attempt import Attempt, LandingError, lake_errors
from antenna_assets.storage.parquet_file import read_table
from antenna_assets.storage.paths import in_parallel, lake_path, sync

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath


@dataclass(frozen=True)
class Merged:
    """A merge that is committed: how many files became one, with how many rows."""

    files: int
    rows: int


def merge_some(connection: psycopg.Connection, lake: str, hour: datetime | None) -> Merged | None:
    """Merge small files of an hour into one, if there are enough of them.

    Args:
        hour: None for rejected messages.

    Returns:
        What was merged, or None if nothing was to be merged.

    Raises:
        FilesChanged, AttemptTooOld, WrongLake: as `commit_merge`; nothing was changed.
        LandingError: a file does not hold what the ledger says.
        LakeUnwritable: the lake's disk is full, or fails.
    """
    files = files_to_merge(small_files(connection, hour))
    if not files:
        return None
    begun = host_now()
    with Attempt(lake, max(file.batch for file in files)) as attempt:
        with lake_errors(lake):
            merged = write_merged(lake, attempt.folder, files)
        commit_merge(connection, lake, files, merged, begun=begun, before_commit=attempt.keep)
    return Merged(len(files), merged.rows)


def write_merged(lake: str, folder: str, files: Sequence[SmallFile]) -> AttemptFile:
    """Write the rows of small files of one kind and hour as one synced file below `folder`, and read it back.

    Raises:
        LandingError: a file is missing or does not hold the rows and bytes that the ledger says, two rows
            have the same coordinates, or what was read back is not what was written.
        OSError: a file cannot be read or written; also the errors of a store.
    """
    root, hour = lake_path(lake), files[0].hour
    commit_point("stream.merge.before_write")
    # One after the other from a disk: threads for so little work would only take the GIL from the commits.
    tables = (
        [_rows_of(root, file) for file in files]
        if isinstance(root, Path)
        else in_parallel(lambda file: _rows_of(root, file), files)
    )
    # By coordinates, which compress well side by side.
    rows = pa.concat_tables(tables).sort_by([(name, "ascending") for name in COORDINATES.names])
    _require_each_once(rows, folder)
    name = REJECTED_FOLDER if hour is None else f"hour={hour.strftime(LANDING_FORMAT)}"
    target = root / folder / name / "merged.parquet"
    if isinstance(target, Path):
        target.parent.mkdir(parents=True)
    with target.open("wb") as file:
        pq.write_table(rows, file, compression="zstd")
    attempt = root / folder
    sync([attempt.parent, attempt, target.parent, target])
    commit_point("stream.merge.after_sync")
    path = f"{folder}/{name}/{target.name}"
    if not read_table(target).select(rows.column_names).cast(rows.schema).equals(rows):
        raise LandingError(f"{path} does not hold the rows that were written to it: nothing was merged")
    size = target.stat().st_size
    return AttemptFile(path, hour, rows.num_rows, sum(file.bytes for file in files), size)


def _rows_of(root: "LakePath", file: SmallFile) -> pa.Table:
    """The rows of a small file, if they are what the ledger says."""
    schema = REJECTED_SCHEMA if file.hour is None else LANDED_SCHEMA
    try:
        rows = read_table(root / file.path).select(schema.names).cast(schema)
    except FileNotFoundError as error:
        raise LandingError(
            f"expected {file.path} with {counted(file.rows, 'row')} in {root}, but there is no such file: "
            "nothing was merged; `antenna verify` shows all differences"
        ) from error
    # Forgetting a user changes the length of rejected messages, and not what the ledger says of it.
    bytes_ = file.bytes if file.hour is None else pc.sum(rows["bytes"], min_count=0).as_py()
    if (rows.num_rows, bytes_) != (file.rows, file.bytes):
        raise LandingError(
            f"expected {file.path} to hold {counted(file.rows, 'row')} and {counted(file.bytes, 'byte')}, "
            f"found {rows.num_rows} and {bytes_}: nothing was merged; `antenna verify` shows all differences"
        )
    return rows


def _require_each_once(rows: pa.Table, folder: str) -> None:
    """Require that no two of the sorted rows have the same coordinates."""
    same = [pc.equal(rows[name][1:], rows[name][:-1]) for name in COORDINATES.names]
    if pc.any(pc.and_(*same), min_count=0).as_py():
        raise LandingError(
            f"two rows of the files to merge into {folder} have the same coordinates: nothing was merged; "
            "`antenna verify` shows all differences"
        )
