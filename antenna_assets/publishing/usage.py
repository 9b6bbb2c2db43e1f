"""Publishing `enriched_usage`: the events of hours joined with their users and the quotas of then."""

from collections.abc import Sequence
from datetime import datetime

from antenna_assets.domain.schema import ENRICHED_USAGE, RAW_PARQUET
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.transforms import transform
from antenna_assets.ledger.generations import Generation, find_generations, generation_of
from antenna_assets.ledger.publications import begin_publications
from antenna_assets.publishing.lake import PublishedHour, generations
from antenna_assets.publishing.lake_hours import WrittenHour, publish_files, require_rows
from antenna_assets.publishing.outcomes import Outcomes, PublishingRun
from antenna_assets.publishing.users import Users, UsersOfRun

TABLE = "enriched_usage"


def publish_usage(run: PublishingRun, hours: Sequence[datetime], users: UsersOfRun) -> Outcomes:
    """Publish hours at the generations that `raw_parquet` has of them.

    Raises:
        UsersUnwritable: see `write_users`.
        WrongLake, ForgottenMeanwhile, LakeError: see `publish_files`.
    """
    outcomes = Outcomes()
    attempts = begin_publications(run.connection, TABLE, hours, users.version)
    raw = run.tables.hours("raw_parquet", hours)
    sealed = find_generations(run.connection, generations(raw))
    inputs: dict[datetime, tuple[Generation, PublishedHour]] = {}
    for hour in hours:
        with outcomes.of(hour):
            published = raw[hour].published("raw_parquet", hour)
            inputs[hour] = generation_of(sealed, hour, published.generation), published
    if not inputs:
        return outcomes
    with outcomes.stage("users"):
        files = [file for _, published in inputs.values() for file in published.files]
        known = users.of([*inputs], files, run.engine)
    written = []
    with outcomes.stage("transform"):
        for hour, (generation, published) in inputs.items():
            with outcomes.of(hour):
                written.append(_write(run, generation, published, known, attempts[hour]))
    with outcomes.stage("publish"):
        publish_files(run, TABLE, written, outcomes)
    return outcomes


def _write(
    run: PublishingRun, generation: Generation, raw: PublishedHour, users: Users, attempt: int
) -> WrittenHour:
    inputs = {"raw_parquet": Dataset(raw.files, RAW_PARQUET), **users.inputs(generation.hour)}
    folder = run.tables.new_folder(TABLE, generation.hour, generation.generation)
    files = run.engine.write(transform(TABLE), inputs, ENRICHED_USAGE, folder)
    require_rows(generation, files, "after the join")
    # As the files' statistics have it; `verify` counts them again.
    unknown = sum(file.nulls["email"] for file in files)
    return WrittenHour(
        generation, files, attempt, users.version, {"unknown_rows": unknown}, {"unknown_user_rows": unknown}
    )
