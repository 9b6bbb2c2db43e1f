"""`enriched_usage`: the hour's events joined with their users, in the lake."""

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

from antenna_assets.defs.assets.declared import hourly_asset
from antenna_assets.defs.assets.lake_tables import PublishingRun, WrittenHour, publish_files, require_rows
from antenna_assets.defs.assets.materialize import Outcomes, Stages, materialize_hours
from antenna_assets.defs.assets.raw import raw_parquet
from antenna_assets.defs.assets.sources import user_metadata
from antenna_assets.defs.partitions import hours_of
from antenna_assets.defs.resources import EngineResource, LakeResource, PostgresResource
from antenna_assets.domain.schema import ENRICHED_USAGE, RAW_PARQUET, USERS
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.transforms import transform
from antenna_assets.ledger.generations import Generation, read_generation
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.ledger.publications import begin_publications
from antenna_assets.publishing.digests import UNKNOWN_ROWS, UNKNOWN_ROWS_COLUMNS
from antenna_assets.publishing.users import write_users


@hourly_asset(group="lake", kinds={"delta"}, deps=[raw_parquet, user_metadata])
def enriched_usage(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> dg.MaterializeResult:
    """One row for each event of the hour, with the user's name, e-mail and quota. Key: kafka_partition and
    kafka_offset, which a topic that was made again counts anew.

    Times are UTC, a quota is in bytes per hour. An event of an unknown user keeps its bytes; its user columns
    are null. Late events arrive with the hour's next generation.
    """
    # Before the lake is claimed: a key that is refused changes nothing.
    hours_of(context)
    tables, run = lake.open(), engine.start()
    with postgres.connection() as connection:
        require_own_lake(connection, tables.root)
    with postgres.connection() as connection, tables.scratch() as scratch:
        users_file = f"{scratch}/users.parquet"
        users_version = write_users(connection, users_file)

        def write(one: Generation, files: list[str], attempt: int) -> WrittenHour:
            inputs = {
                "raw_parquet": Dataset(files, RAW_PARQUET),
                "user_metadata": Dataset([users_file], USERS),
            }
            folder = tables.new_folder("enriched_usage", one.hour, one.generation)
            written = run.write(transform("enriched_usage"), inputs, ENRICHED_USAGE, folder)
            require_rows(one, written, "after the join")
            usage = Dataset([file.path for file in written], ENRICHED_USAGE)
            counted = run.read(UNKNOWN_ROWS, {"enriched_usage": usage}, UNKNOWN_ROWS_COLUMNS)
            unknown = counted["unknown_rows"][0].as_py()
            return WrittenHour(
                one,
                written,
                attempt,
                users_version,
                {"unknown_rows": unknown},
                {"unknown_user_rows": unknown},
            )

        def materialize(hours: Sequence[datetime], stage: Stages, outcomes: Outcomes) -> None:
            attempts = begin_publications(connection, "enriched_usage", hours, users_version)
            raw = tables.hours("raw_parquet", hours)
            written = []
            for hour in hours:
                with outcomes.of(hour), stage("transform"):
                    published = raw[hour].published("raw_parquet", hour)
                    generation = read_generation(connection, hour, published.generation)
                    written.append(write(generation, published.files, attempts[hour]))
            publishing = PublishingRun(connection, tables, run, context.run.run_id)
            publish_files(publishing, "enriched_usage", written, stage, outcomes)

        return materialize_hours(context, connection, materialize)
