"""Publishing hours of a lake table whose files are written: one commit for all, then the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from antenna_assets.domain.counted import counted
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.ledger.certificate import record_and_certify
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.generations import Generation
from antenna_assets.ledger.lake_identity import require_same_lake
from antenna_assets.ledger.publications import Publication, abandon_publication, require_nobody_forgotten
from antenna_assets.publishing.digests import files_manifest
from antenna_assets.publishing.fence import Replacement
from antenna_assets.publishing.lake import USERS_VERSION
from antenna_assets.publishing.outcomes import HourReport, Outcomes, PublishingRun


@dataclass(frozen=True)
class WrittenHour:
    """An hour of a lake table whose files are written and not yet committed.

    Attributes:
        attempt: what `begin_publications` returned before anything was read.
        users_version: of the users that the files were joined with; None if they were not.
        content: what the publication records besides its files.
        numbers: further numbers of the report.
    """

    generation: Generation
    files: Sequence[WrittenFile]
    attempt: int
    users_version: int | None = None
    content: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)

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


def publish_files(run: PublishingRun, asset: str, written: Sequence[WrittenHour], outcomes: Outcomes) -> None:
    """Make the files of each hour the hour of the asset's table, in one commit, and record it.

    Raises:
        WrongLake: the lake no longer belongs to the ledger.
        ForgottenMeanwhile: a user was forgotten since the connection was opened.
            After each of these nothing was changed.
        LakeError: the table cannot be written.
    """
    if not written:
        return
    connection, tables = run.connection, run.tables
    require_same_lake(connection, tables.root)
    replaced = tables.replace_hours(
        asset,
        [
            Replacement(
                asset, one.generation.hour, one.generation.generation, one.files, one.tags, one.attempt
            )
            for one in written
        ],
        before_commit=lambda: require_nobody_forgotten(connection),
    )
    for one in written:
        if one.generation.hour in replaced.superseded:
            abandon_publication(connection, asset, one.generation.hour, one.attempt)
    # If a user was forgotten during the commit, the files may be gone by now.
    require_nobody_forgotten(connection)
    table_id = tables.table_id(asset)
    publications = [
        Publication(
            asset=asset,
            hour=one.generation.hour,
            generation=one.generation.generation,
            rows=one.generation.rows,
            bytes=one.generation.bytes,
            users_version=one.users_version,
            run_id=run.run_id,
            lake_version=replaced.version,
            content={"files": files_manifest(tables.location(asset), one.files), **one.content},
            attempt=one.attempt,
            lake_table=table_id,
        )
        for one in written
        if one.generation.hour not in replaced.superseded
    ]
    outcomes.superseded |= {**replaced.superseded, **record_and_certify(connection, publications)}
    for one in written:
        if one.generation.hour not in outcomes.superseded:
            outcomes.published[one.generation.hour] = _report(one)


def _report(written: WrittenHour) -> HourReport:
    generation, files = written.generation, written.files
    numbers = {
        "rows": generation.rows,
        "bytes": generation.bytes,
        "generation": generation.generation,
        "files": len(files),
        "file_bytes": sum(file.size for file in files),
    }
    return HourReport({**numbers, **written.tags, **written.numbers}, [file.path for file in files])
