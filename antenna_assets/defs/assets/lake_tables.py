"""How the two assets of the lake end: an hour's files become the table's hour, recorded, certified and shown.

What is in the files is the assets' matter.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from antenna_assets.defs.assets.materialize import Report, Stages
from antenna_assets.defs.assets.preview import lake_views
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.engines.contract import Dataset, Engine, WrittenFile
from antenna_assets.errors import Superseded
from antenna_assets.ledger.certificate import record_and_certify
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.generations import Generation
from antenna_assets.ledger.lake_identity import require_same_lake
from antenna_assets.ledger.publications import Publication, end_superseded, require_nobody_forgotten
from antenna_assets.publishing.digests import files_manifest
from antenna_assets.publishing.lake import Lake

USERS_VERSION = "users_version"
"""Name under which the lake keeps, with an hour's files, the version of the users that they were joined with."""


def require_rows(generation: Generation, files: Sequence[WrittenFile], where: str) -> None:
    """Stop before anything is published if the files have not the rows of the hour's generation.

    Raises:
        LedgerError: more or fewer.
    """
    found = sum(file.rows for file in files)
    if found != generation.rows:
        raise LedgerError(f"expected {generation.rows} rows as the ledger says, found {found} {where}")


def publish_files(
    connection: psycopg.Connection,
    tables: Lake,
    engine: Engine,
    asset: str,
    generation: Generation,
    files: Sequence[WrittenFile],
    *,
    attempt: int,
    stage: Stages,
    run_id: str,
    users_version: int | None = None,
    content: Mapping[str, Any] | None = None,
) -> Report:
    """Make the files the hour of the asset's table, and report them.

    Args:
        attempt: what `begin_publication` gave before anything was read.
        users_version: of the users that they were joined with, if they were.
        content: what the publication has to say besides its files.

    Raises:
        Superseded: the hour holds a newer version; nothing was changed.
        WrongLake: the lake is not the ledger's any more; nothing was changed.
        ForgottenMeanwhile: a user was forgotten since the connection was opened; nothing was changed.
        LakeError: the table cannot be written.
    """
    tags = {} if users_version is None else {USERS_VERSION: users_version}
    with stage("publish"):
        require_same_lake(connection, tables.root)
        try:
            version = tables.replace_hour(
                asset,
                generation.hour,
                generation.generation,
                files,
                tags=tags,
                attempt=attempt,
                before_commit=lambda: require_nobody_forgotten(connection),
            )
        except Superseded:
            end_superseded(connection, asset, generation.hour, attempt)
            raise
        # If it was then that a user was forgotten, the files may be gone by now.
        require_nobody_forgotten(connection)
        publication = Publication(
            asset=asset,
            hour=generation.hour,
            generation=generation.generation,
            rows=generation.rows,
            bytes=generation.bytes,
            users_version=users_version,
            run_id=run_id,
            lake_version=version,
            content={"files": files_manifest(tables.location(asset), files), **(content or {})},
            attempt=attempt,
            lake_table=tables.table_id(asset),
        )
        record_and_certify(connection, publication)
    with stage("preview"):
        views = lake_views(engine, Dataset([file.path for file in files], LAKE_TABLES[asset]))
    return {
        "rows": generation.rows,
        "bytes": generation.bytes,
        "generation": generation.generation,
        "files": len(files),
        "file_bytes": sum(file.size for file in files),
        **tags,
        **views,
    }
