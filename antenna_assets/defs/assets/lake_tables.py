"""Publishing an hour of a lake table: commit its files, record and certify it, show a preview."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from antenna_assets.defs.assets.materialize import Report, Stages
from antenna_assets.defs.assets.preview import lake_views
from antenna_assets.domain.counted import counted
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.engines.contract import Dataset, Engine, WrittenFile
from antenna_assets.errors import Superseded
from antenna_assets.ledger.certificate import record_and_certify
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.generations import Generation
from antenna_assets.ledger.lake_identity import require_same_lake
from antenna_assets.ledger.publications import Publication, abandon_publication, require_nobody_forgotten
from antenna_assets.publishing.digests import files_manifest
from antenna_assets.publishing.lake import USERS_VERSION, Lake


@dataclass(frozen=True)
class PublishingRun:
    """What a run publishes an hour of the lake with."""

    connection: psycopg.Connection
    tables: Lake
    engine: Engine
    run_id: str


@dataclass(frozen=True)
class WrittenHour:
    """An hour of a lake table whose files are written and not yet committed.

    Attributes:
        attempt: what `begin_publication` returned before anything was read.
        users_version: of the users that the files were joined with; None if they were not.
        content: what the publication records besides its files.
    """

    asset: str
    generation: Generation
    files: Sequence[WrittenFile]
    attempt: int
    users_version: int | None = None
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tags(self) -> dict[str, int]:
        """The versions that the lake keeps with the hour."""
        return {} if self.users_version is None else {USERS_VERSION: self.users_version}


def require_rows(generation: Generation, files: Sequence[WrittenFile], where: str) -> None:
    """Stop before anything is published if the files do not have the rows of the hour's generation.

    Raises:
        LedgerError: they have more or fewer.
    """
    found = sum(file.rows for file in files)
    if found != generation.rows:
        raise LedgerError(
            f"expected {counted(generation.rows, 'row')} as the ledger says, found {found} {where}"
        )


def publish_files(run: PublishingRun, written: WrittenHour, stage: Stages) -> Report:
    """Make the files the hour of the asset's table, and report them.

    Raises:
        Superseded: the hour holds a newer version.
        WrongLake: the lake no longer belongs to the ledger.
        ForgottenMeanwhile: a user was forgotten since the connection was opened.
            After each of these nothing was changed.
        LakeError: the table cannot be written.
    """
    connection, tables = run.connection, run.tables
    asset, generation, files = written.asset, written.generation, written.files
    with stage("publish"):
        require_same_lake(connection, tables.root)
        try:
            version = tables.replace_hour(
                asset,
                generation.hour,
                generation.generation,
                files,
                tags=written.tags,
                attempt=written.attempt,
                before_commit=lambda: require_nobody_forgotten(connection),
            )
        except Superseded:
            abandon_publication(connection, asset, generation.hour, written.attempt)
            raise
        # If a user was forgotten during the commit, the files may be gone by now.
        require_nobody_forgotten(connection)
        publication = Publication(
            asset=asset,
            hour=generation.hour,
            generation=generation.generation,
            rows=generation.rows,
            bytes=generation.bytes,
            users_version=written.users_version,
            run_id=run.run_id,
            lake_version=version,
            content={"files": files_manifest(tables.location(asset), files), **written.content},
            attempt=written.attempt,
            lake_table=tables.table_id(asset),
        )
        record_and_certify(connection, publication)
    with stage("preview"):
        views = lake_views(run.engine, Dataset([file.path for file in files], LAKE_TABLES[asset]))
    return {
        "rows": generation.rows,
        "bytes": generation.bytes,
        "generation": generation.generation,
        "files": len(files),
        "file_bytes": sum(file.size for file in files),
        **written.tags,
        **views,
    }
