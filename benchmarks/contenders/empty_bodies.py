"""The same job with empty bodies: assets and checks of the same names and partitions that do nothing.

This is the cost of Dagster itself, the floor of any job of this shape.
"""

from collections.abc import Iterator

import dagster as dg

from antenna_assets.defs.partitions import BACKFILL_POLICY, HOURS
from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.verify.claims import CLAIMS


def _empty(name: str, *upstream: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=list(upstream), partitions_def=HOURS, backfill_policy=BACKFILL_POLICY)
    def body() -> dg.MaterializeResult:
        return dg.MaterializeResult()

    return body


def _empty_checks(name: str, *assets: str) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(check, asset=asset, blocking=asset == "raw_parquet", partitions_def=HOURS)
        for asset in assets
        for check in CLAIMS[asset]
        if check != "hours_are_fresh"
    ]

    @dg.multi_asset_check(name=name, specs=specs)
    def body() -> Iterator[dg.AssetCheckResult]:
        for spec in specs:
            yield dg.AssetCheckResult(passed=True, asset_key=spec.asset_key, check_name=spec.name)

    return body


@dg.asset_check(asset="users_over_quota_1h", name="hours_are_fresh")
def _empty_check() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


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
    asset_checks=[
        _empty_checks("raw_parquet_checks", "raw_parquet"),
        _empty_checks("enriched_usage_checks", "enriched_usage"),
        _empty_checks("hourly_table_checks", *HOURLY_TABLES),
        _empty_check,
    ],
    jobs=[dg.define_asset_job("hourly_usage", selection=assets, partitions_def=HOURS)],
    executor=dg.in_process_executor,
)
