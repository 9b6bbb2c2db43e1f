"""`raw_parquet`: the hour as it landed, in the lake. It seals an hour's next generation."""

from datetime import datetime

import dagster as dg

from antenna_assets.defs.assets.declared import hourly_asset
from antenna_assets.defs.assets.lake_tables import PublishingRun, WrittenHour, publish_files, require_rows
from antenna_assets.defs.assets.materialize import Report, Stages, materialize_hours
from antenna_assets.defs.assets.sources import landing
from antenna_assets.defs.partitions import hours_of
from antenna_assets.defs.resources import EngineResource, LakeResource, PostgresResource
from antenna_assets.domain.schema import LANDED_SCHEMA, RAW_PARQUET
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.transforms import transform
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.closed_hours import require_closed
from antenna_assets.ledger.errors import HourExpired
from antenna_assets.ledger.files import generation_files
from antenna_assets.ledger.hours_to_publish import wholly_published
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.ledger.landing import landing_of
from antenna_assets.ledger.publications import begin_publication
from antenna_assets.ledger.seal import seal


@hourly_asset(group="lake", kinds={"delta"}, deps=[landing])
def raw_parquet(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> dg.MaterializeResult:
    """One row for each event of the hour, as it was received. Key: kafka_partition and kafka_offset,
    which a topic that was made again counts anew.

    Times are UTC. Late events make a closed hour dirty; its next generation holds them.
    """
    tables, run = lake.open(), engine.start()
    with postgres.connection() as connection:
        # Before the lake is claimed: a key that is refused changes nothing.
        require_closed(connection, hours_of(context))
        require_own_lake(connection, tables.root)

        def materialize(hour: datetime, stage: Stages) -> Report:
            with stage("seal"):
                generation = seal(connection, hour)
                landed = landing_of(connection, generation)
            commit_point("publish.sealed")
            try:
                paths = [lake.landed_file(path) for path in generation_files(connection, generation)]
                attempt = begin_publication(connection, "raw_parquet", hour, None)
            except HourExpired:
                # Finish what was begun: the table holds the rows that landed for this generation.
                if (
                    wholly_published(connection, hour)
                    or tables.hour("raw_parquet", hour).generation != generation.generation
                ):
                    raise
                attempt = begin_publication(connection, "raw_parquet", hour, None)
                paths = tables.hour("raw_parquet", hour).files
            inputs = {"landed": Dataset(paths, LANDED_SCHEMA)}
            folder = tables.new_folder("raw_parquet", hour, generation.generation)
            with stage("transform"):
                files = run.write(transform("raw_parquet"), inputs, RAW_PARQUET, folder)
            require_rows(generation, files, "in the landed files")
            report = publish_files(
                PublishingRun(connection, tables, run, context.run.run_id),
                WrittenHour("raw_parquet", generation, files, attempt),
                stage,
            )
            return {
                **report,
                "late_rows": landed["landed"]["late_rows"],
                "quarantined_in_its_batches": landed["batches"]["quarantined"],
            }

        return materialize_hours(context, connection, materialize)
