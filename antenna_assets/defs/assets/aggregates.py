"""`bytes_agg_antenna_1h`, `bytes_agg_user_1h`, `bytes_agg_app_1h`: the hour's bytes by key, in PostgreSQL."""

import dagster as dg

from antenna_assets.defs.assets.declared import hourly_asset
from antenna_assets.defs.assets.serving_tables import publish_hours
from antenna_assets.defs.assets.usage import enriched_usage
from antenna_assets.defs.resources import EngineResource, LakeResource, PostgresResource


@hourly_asset(group="hourly", kinds={"postgres"}, deps=[enriched_usage])
def bytes_agg_antenna_1h(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> dg.MaterializeResult:
    """Bytes of the hour for each antenna. Key: date (the hour's first instant, UTC) and antenna_id.

    Late events replace the hour as a whole, with its next generation.
    """
    return publish_hours(context, postgres, lake, engine, conserves_bytes=True)


@hourly_asset(group="hourly", kinds={"postgres"}, deps=[enriched_usage])
def bytes_agg_user_1h(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> dg.MaterializeResult:
    """Bytes of the hour for each user. Key: date (the hour's first instant, UTC) and id.

    An unknown user has its bytes and no e-mail. Late events replace the hour as a whole, with its next
    generation.
    """
    return publish_hours(context, postgres, lake, engine, conserves_bytes=True)


@hourly_asset(group="hourly", kinds={"postgres"}, deps=[enriched_usage])
def bytes_agg_app_1h(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> dg.MaterializeResult:
    """Bytes of the hour for each application. Key: date (the hour's first instant, UTC) and app.

    Late events replace the hour as a whole, with its next generation.
    """
    return publish_hours(context, postgres, lake, engine, conserves_bytes=True)
