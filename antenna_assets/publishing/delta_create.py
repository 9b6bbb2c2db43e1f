"""Creating a Delta table partitioned by hour, durably, while other writers may be creating it as well."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from antenna_assets.domain.schema import HOUR_PARTITION
from antenna_assets.failpoints import commit_point
from antenna_assets.publishing.delta_log import LOG
from antenna_assets.storage.atomic_files import replacing
from antenna_assets.storage.paths import lake_path, sync

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath


def create_table(location: str, columns: pa.Schema, table_id: str | None = None) -> None:
    """Create the table, unless another writer has, and sync it with every folder that leads to it.

    Args:
        table_id: Delta's id of a table that was lost and is built again; None: a random one.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import CommitFailedError
    from deltalake.transaction import CommitProperties

    folder = lake_path(location)
    partition = [pa.field(name, pa.int32(), nullable=False) for name in HOUR_PARTITION]
    made = [path for path in folder.parents if not path.exists()]
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
    with suppress(CommitFailedError):  # Another writer created it.
        DeltaTable.create(
            location,
            pa.schema([*columns, *partition]),
            mode="ignore",
            partition_by=list(HOUR_PARTITION),
            # With retries two creators could both commit, the second over the first one's metadata.
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    log = folder / LOG
    first = log / f"{0:020}.json"
    if table_id is not None:
        _set_id(location, first, table_id)
    commit_point("publish.lake.created")
    # Whoever created it: nothing that is committed on top of it may outlive it.
    sync([first, log, folder, folder.parent, *(path.parent for path in made)])


def _set_id(location: str, first_commit: "LakePath", table_id: str) -> None:
    """Give another id to a table that holds nothing yet."""
    from deltalake import DeltaTable

    created = DeltaTable(location)
    if created.version():
        return  # Another writer was faster, and the id is that writer's.
    text = first_commit.read_text(encoding="utf-8").replace(str(created.metadata().id), table_id)
    if isinstance(first_commit, Path):
        with replacing(first_commit, durable=True) as new:
            new.write_text(text, encoding="utf-8")
    else:
        first_commit.write_text(text, encoding="utf-8")
