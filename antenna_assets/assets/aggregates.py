"""`bytes_agg_antenna_1h`, `bytes_agg_user_1h` and `bytes_agg_app_1h`: the hour's bytes by key, in PostgreSQL."""

from datetime import datetime

import dagster as dg
import pyarrow.compute as pc

from antenna_assets.assets.report import Numbers, materialize_hours
from antenna_assets.assets.usage import USERS_VERSION, enriched_usage
from antenna_assets.engines.contract import Dataset
from antenna_assets.ledger import LedgerError, Publication, read_generation
from antenna_assets.partitions import BACKFILL_POLICY, HOURS
from antenna_assets.resources import EngineResource, LakeResource, PostgresResource
from antenna_assets.schema import ENRICHED_USAGE, HOURLY_TABLES
from antenna_assets.serving import replace_hour
from antenna_assets.transforms import transform


def publish_hours(
    context: dg.AssetExecutionContext,
    postgres: PostgresResource,
    lake: LakeResource,
    engine: EngineResource,
    *,
    conserves_bytes: bool,
) -> dg.MaterializeResult:
    """Compute the asset's table from `enriched_usage`, at the generation that it carries, and publish each hour.

    Raises:
        LedgerError: with `conserves_bytes`, the sums of an hour are not the bytes of its generation.
    """
    table = HOURLY_TABLES[context.asset_key.to_user_string()]
    tables, run = lake.open(), engine.start()
    with postgres.connection() as connection:

        def materialize(hour: datetime) -> Numbers:
            usage = tables.published_hour("enriched_usage", hour)
            inputs = {"enriched_usage": Dataset(usage.files, ENRICHED_USAGE)}
            rows = run.read(transform(table.name), inputs, table.columns)
            bytes_ = pc.sum(rows[table.sum_column]).as_py() or 0
            expected = read_generation(connection, hour, usage.generation).bytes
            if conserves_bytes and bytes_ != expected:
                raise LedgerError(f"{table.name}: expected the hour's {expected} bytes, found {bytes_}")
            users_version = usage.tags[USERS_VERSION]
            publication = Publication(
                table.name, hour, usage.generation, rows.num_rows, bytes_, users_version, context.run.run_id
            )
            replace_hour(connection, table, rows, publication)
            return {
                "rows": rows.num_rows,
                "bytes": bytes_,
                "generation": usage.generation,
                "users_version": users_version,
            }

        return materialize_hours(context, materialize)


@dg.asset(
    partitions_def=HOURS,
    backfill_policy=BACKFILL_POLICY,
    deps=[enriched_usage],
    group_name="hourly",
    kinds={"postgres"},
)
def bytes_agg_antenna_1h(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> dg.MaterializeResult:
    """Bytes of the hour for each antenna. Key: date (the hour's first instant, UTC) and antenna_id.

    Late events replace the hour as a whole, with its next generation.
    """
    return publish_hours(context, postgres, lake, engine, conserves_bytes=True)


@dg.asset(
    partitions_def=HOURS,
    backfill_policy=BACKFILL_POLICY,
    deps=[enriched_usage],
    group_name="hourly",
    kinds={"postgres"},
)
def bytes_agg_user_1h(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> dg.MaterializeResult:
    """Bytes of the hour for each user. Key: date (the hour's first instant, UTC) and id.

    An unknown user has its bytes and no e-mail. Late events replace the hour as a whole, with its next generation.
    """
    return publish_hours(context, postgres, lake, engine, conserves_bytes=True)


@dg.asset(
    partitions_def=HOURS,
    backfill_policy=BACKFILL_POLICY,
    deps=[enriched_usage],
    group_name="hourly",
    kinds={"postgres"},
)
def bytes_agg_app_1h(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> dg.MaterializeResult:
    """Bytes of the hour for each application. Key: date (the hour's first instant, UTC) and app.

    Late events replace the hour as a whole, with its next generation.
    """
    return publish_hours(context, postgres, lake, engine, conserves_bytes=True)
