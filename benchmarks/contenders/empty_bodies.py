"""The same job with empty bodies: six assets of the same names and partitions that do nothing.

What Dagster itself costs, and so the floor of any job of this shape.
"""

import dagster as dg

from antenna_assets.partitions import BACKFILL_POLICY, HOURS


def _empty(name: str, *upstream: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=list(upstream), partitions_def=HOURS, backfill_policy=BACKFILL_POLICY)
    def body() -> dg.MaterializeResult:
        return dg.MaterializeResult()

    return body


assets = [
    _empty("raw_parquet"),
    _empty("enriched_usage", "raw_parquet"),
    _empty("bytes_agg_antenna_1h", "enriched_usage"),
    _empty("bytes_agg_user_1h", "enriched_usage"),
    _empty("bytes_agg_app_1h", "enriched_usage"),
    _empty("users_over_quota_1h", "enriched_usage"),
]

definitions = dg.Definitions(
    assets=assets,
    jobs=[dg.define_asset_job("hourly_usage", selection=assets, partitions_def=HOURS)],
    executor=dg.in_process_executor,
)
