"""Six assets with empty bodies and no checks: the difference to `empty_bodies` is the cost of checks."""

import dagster as dg

from antenna_assets.defs.partitions import HOURS
from benchmarks.contenders.empty_bodies import assets

definitions = dg.Definitions(
    assets=assets,
    jobs=[dg.define_asset_job("hourly_usage", selection=assets, partitions_def=HOURS)],
    executor=dg.in_process_executor,
)
