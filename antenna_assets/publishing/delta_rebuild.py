"""What only a rebuild of a table needs of it: committing hours again, and advancing its version.

Which hours are missing is decided in `operations/rebuild.py`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from antenna_assets.engines.contract import WrittenFile
from antenna_assets.failpoints import commit_point
from antenna_assets.publishing import delta
from antenna_assets.publishing.delta import HourlyTable
from antenna_assets.publishing.delta_commit import add_action, commit
from antenna_assets.publishing.delta_log import LAST_CHECKPOINT, LOG, log_files
from antenna_assets.storage.files import remove_files
from antenna_assets.storage.paths import sync

if TYPE_CHECKING:
    from deltalake import DeltaTable

_REASON = "versions go on where the ledger knows them to have been"


@dataclass(frozen=True)
class RestoredHour:
    """An hour whose files exist and that the table's log does not know.

    Attributes:
        versions: the hour's application transactions, by their key.
    """

    hour: datetime
    files: Sequence[WrittenFile]
    versions: Mapping[str, int]


def restore(table: HourlyTable, loaded: "DeltaTable", hours: Sequence[RestoredHour]) -> None:
    """Commit the files of hours of which the version that `loaded` holds has none.

    Raises:
        Conflict: `loaded` is no longer the newest version.
        LakeError: the table cannot be written.
    """
    with table.errors("written"):
        commit(
            loaded,
            [add_action(table.location, one.hour, file) for one in hours for file in one.files],
            versions={key: version for one in hours for key, version in one.versions.items()},
            metadata={"rebuild": "hours as the ledger names them"},
        )
        table.sync_commit(loaded.version() + 1)


def advance_version(table: HourlyTable, version: int) -> None:
    """Bring the table to at least this version without a change.

    A table that was built again continues at the version that the ledger has recorded.

    Raises:
        LakeError: the table cannot be written.
    """
    loaded = table.newest()
    if loaded is None or loaded.version() >= version:
        return
    with table.errors("written"):
        if version - loaded.version() <= delta.CHECKPOINT_EVERY:
            while loaded is not None and loaded.version() < version:
                table.commit_empty(loaded, _REASON)
                loaded = table.newest()
            return
        table.commit_empty(loaded, _REASON)
        loaded = table.newest()
        if loaded is not None:
            _checkpoint_as(table, loaded, version)


def _checkpoint_as(table: HourlyTable, loaded: "DeltaTable", version: int) -> None:
    """Write the present content as a checkpoint of a later version, instead of thousands of commits."""
    log = table.folder / LOG
    loaded.create_checkpoint()
    before = [path for path in log_files(table.folder) if path.name != LAST_CHECKPOINT]
    for kind in ("json", "checkpoint.parquet"):
        target = log / f"{version:020}.{kind}"
        target.write_bytes((log / f"{loaded.version():020}.{kind}").read_bytes())
        sync([target, log])
    hint = json.loads((log / LAST_CHECKPOINT).read_text(encoding="utf-8"))
    (log / LAST_CHECKPOINT).write_text(json.dumps({**hint, "version": version}), encoding="utf-8")
    sync([log / LAST_CHECKPOINT])
    commit_point("rebuild.counted_on")
    remove_files(before)
    sync([log])
    table.forget_handle()
