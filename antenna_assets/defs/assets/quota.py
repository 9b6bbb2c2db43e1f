"""`users_over_quota_1h`: who used more bytes in the hour than their quota, in PostgreSQL."""

import dagster as dg

from antenna_assets.defs.assets.declared import hourly_asset
from antenna_assets.defs.assets.serving_tables import publish_hours
from antenna_assets.defs.assets.usage import enriched_usage
from antenna_assets.defs.resources import EngineResource, LakeResource, PostgresResource


@hourly_asset(group="hourly", kinds={"postgres"}, deps=[enriched_usage])
def users_over_quota_1h(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> dg.MaterializeResult:
    """One row for each known user whose bytes of the hour are above the quota. Key: date (the hour, UTC) and
    id.

    The quota is the one of the users' version that the hour was enriched with. Late events replace the hour
    as a whole.
    """
    return publish_hours(context, postgres, lake, engine, conserves_bytes=False)
