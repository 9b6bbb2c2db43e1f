"""`raw_parquet`: the hour as it landed, in the lake. Here an hour's next generation is sealed."""

from datetime import datetime

import dagster as dg

from antenna_assets.assets.report import Numbers, materialize_hours
from antenna_assets.assets.sources import landing
from antenna_assets.certificate import record_and_certify
from antenna_assets.contents import files_content
from antenna_assets.crash import commit_point
from antenna_assets.engines.contract import Dataset
from antenna_assets.ledger import (
    LedgerError,
    Publication,
    landed_files,
    require_closed,
    seal,
)
from antenna_assets.partitions import BACKFILL_POLICY, HOURS, hours_of
from antenna_assets.resources import EngineResource, LakeResource, PostgresResource
from antenna_assets.schema import LANDED, RAW_PARQUET
from antenna_assets.transforms import transform


@dg.asset(
    partitions_def=HOURS, backfill_policy=BACKFILL_POLICY, deps=[landing], group_name="lake", kinds={"delta"}
)
def raw_parquet(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> dg.MaterializeResult:
    """One row for each event of the hour, as it was received. Key: kafka_partition and kafka_offset.

    Times are UTC, bytes are bytes. Late events make a closed hour dirty; its next generation holds them.
    """
    tables, run = lake.open(), engine.start()
    with postgres.connection() as connection:
        require_closed(connection, hours_of(context))

        def materialize(hour: datetime) -> Numbers:
            generation = seal(connection, hour)
            commit_point("publish.sealed")
            landed = Dataset(
                [lake.landed_file(path) for path in landed_files(connection, generation)], LANDED
            )
            folder = tables.new_folder("raw_parquet", hour, generation.generation)
            files = run.write(transform("raw_parquet"), {"landed": landed}, RAW_PARQUET, folder)
            rows = sum(file.rows for file in files)
            if rows != generation.rows:
                raise LedgerError(
                    f"expected {generation.rows} rows as the ledger says, found {rows} in the landed files"
                )
            version = tables.replace_hour("raw_parquet", hour, generation.generation, files)
            publication = Publication(
                asset="raw_parquet",
                hour=hour,
                generation=generation.generation,
                rows=rows,
                bytes=generation.bytes,
                users_version=None,
                run_id=context.run.run_id,
                lake_version=version,
                content={"files": files_content(tables.location("raw_parquet"), files)},
            )
            record_and_certify(connection, publication)
            return {
                "rows": rows,
                "bytes": generation.bytes,
                "generation": generation.generation,
                "files": len(files),
            }

        return materialize_hours(context, materialize)
