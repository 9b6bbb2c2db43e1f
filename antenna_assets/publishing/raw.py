"""Publishing `raw_parquet`: hours as they landed. It seals an hour's next generation."""

import posixpath
from collections.abc import Sequence
from datetime import datetime

from antenna_assets.domain.schema import LANDED_SCHEMA, RAW_PARQUET
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.transforms import transform
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.errors import HourExpired
from antenna_assets.ledger.files import generation_files
from antenna_assets.ledger.generations import Generation
from antenna_assets.ledger.hours_to_publish import wholly_published
from antenna_assets.ledger.landing import landing_of
from antenna_assets.ledger.publications import begin_publications
from antenna_assets.ledger.seal import seal
from antenna_assets.publishing.lake_hours import WrittenHour, publish_files, require_rows
from antenna_assets.publishing.outcomes import Outcomes, PublishingRun

TABLE = "raw_parquet"


def publish_raw(run: PublishingRun, hours: Sequence[datetime]) -> Outcomes:
    """Seal closed hours, and publish their generations from the landed files.

    Raises:
        WrongLake, ForgottenMeanwhile, LakeError: see `publish_files`.
    """
    outcomes = Outcomes()
    sealed: dict[datetime, tuple[Generation, list[str]]] = {}
    with outcomes.stage("seal"):
        for hour in hours:
            with outcomes.of(hour):
                generation = seal(run.connection, hour)
                commit_point("publish.sealed")
                sealed[hour] = generation, _inputs(run, generation)
    attempts = begin_publications(run.connection, TABLE, [*sealed], None)
    written = []
    with outcomes.stage("transform"):
        for hour, (generation, paths) in sealed.items():
            with outcomes.of(hour):
                written.append(_write(run, generation, paths, attempts[hour]))
    with outcomes.stage("publish"):
        publish_files(run, TABLE, written, outcomes)
    return outcomes


def _inputs(run: PublishingRun, generation: Generation) -> list[str]:
    """The files with the rows of a generation: the landed ones.

    Raises:
        HourExpired: they are past their retention, and nothing is left to finish.
    """
    try:
        landed = generation_files(run.connection, generation)
        return [posixpath.join(run.tables.root, path) for path in landed]
    except HourExpired:
        # Finish what was begun: the table holds the rows that landed for this generation.
        held = run.tables.hour(TABLE, generation.hour)
        if wholly_published(run.connection, generation.hour) or held.generation != generation.generation:
            raise
        return held.files


def _write(run: PublishingRun, generation: Generation, paths: Sequence[str], attempt: int) -> WrittenHour:
    folder = run.tables.new_folder(TABLE, generation.hour, generation.generation)
    inputs = {"landed": Dataset(paths, LANDED_SCHEMA)}
    files = run.engine.write(transform(TABLE), inputs, RAW_PARQUET, folder)
    require_rows(generation, files, "in the landed files")
    landing = landing_of(run.connection, generation)
    numbers = {
        "late_rows": landing["landed"]["late_rows"],
        "quarantined_in_its_batches": landing["batches"]["quarantined"],
    }
    return WrittenHour(generation, files, attempt, numbers=numbers)
