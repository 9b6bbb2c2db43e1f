"""The one job: all six assets of an hour, or of a range of hours. When it runs is for `sensors.py`."""

import dagster as dg

from antenna_assets.schema import ASSETS

hourly_usage = dg.define_asset_job(
    "hourly_usage",
    selection=dg.AssetSelection.assets(*ASSETS),
    description="From the landed files of closed hours to bytes by antenna, user and app, and the users over quota.",
)
