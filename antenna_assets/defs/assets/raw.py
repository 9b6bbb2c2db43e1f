"""`raw_parquet`: the hour as it landed, in the lake. It seals an hour's next generation."""

from collections.abc import Sequence
from datetime import datetime

import dagster as dg
import psycopg

from antenna_assets.defs.assets.declared import hourly_asset
from antenna_assets.defs.assets.lake_tables import PublishingRun, WrittenHour, publish_files, require_rows
from antenna_assets.defs.assets.materialize import Outcomes, Stages, materialize_hours
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
from antenna_assets.ledger.generations import Generation
from antenna_assets.ledger.hours_to_publish import wholly_published
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.ledger.landing import landing_of
from antenna_assets.ledger.publications import begin_publications
from antenna_assets.ledger.seal import seal
from antenna_assets.publishing.lake import Lake


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

        def materialize(hours: Sequence[datetime], stage: Stages, outcomes: Outcomes) -> None:
            sealed: dict[datetime, tuple[Generation, list[str]]] = {}
            for hour in hours:
                with outcomes.of(hour), stage("seal"):
                    generation = seal(connection, hour)
                    commit_point("publish.sealed")
                    sealed[hour] = generation, _inputs(connection, lake, tables, generation)
            attempts = begin_publications(connection, "raw_parquet", [*sealed], None)
            written = []
            for hour, (generation, paths) in sealed.items():
                with outcomes.of(hour), stage("transform"):
                    folder = tables.new_folder("raw_parquet", hour, generation.generation)
                    inputs = {"landed": Dataset(paths, LANDED_SCHEMA)}
                    files = run.write(transform("raw_parquet"), inputs, RAW_PARQUET, folder)
                    require_rows(generation, files, "in the landed files")
                    shown = _landing_numbers(connection, generation)
                    written.append(WrittenHour(generation, files, attempts[hour], shown=shown))
            publishing = PublishingRun(connection, tables, run, context.run.run_id)
            publish_files(publishing, "raw_parquet", written, stage, outcomes)

        return materialize_hours(context, connection, materialize)


def _landing_numbers(connection: psycopg.Connection, generation: Generation) -> dict[str, int]:
    landing = landing_of(connection, generation)
    return {
        "late_rows": landing["landed"]["late_rows"],
        "quarantined_in_its_batches": landing["batches"]["quarantined"],
    }


def _inputs(
    connection: psycopg.Connection, lake: LakeResource, tables: Lake, generation: Generation
) -> list[str]:
    """The files with the rows of a generation: the landed ones.

    Raises:
        HourExpired: they are past their retention, and nothing is left to finish.
    """
    try:
        return [lake.landed_file(path) for path in generation_files(connection, generation)]
    except HourExpired:
        # Finish what was begun: the table holds the rows that landed for this generation.
        held = tables.hour("raw_parquet", generation.hour)
        if wholly_published(connection, generation.hour) or held.generation != generation.generation:
            raise
        return held.files
