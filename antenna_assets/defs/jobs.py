"""The one job: all six assets of an hour, or of a range of hours. When it runs is for `sensors.py`."""

import dagster as dg

from antenna_assets.domain.schema import ASSETS

hourly_usage = dg.define_asset_job(
    "hourly_usage",
    selection=dg.AssetSelection.assets(*ASSETS),
    description="From the landed files of closed hours to bytes by antenna, user and app, and the users over quota.",
)


def publishes_hours(run: dg.DagsterRun) -> bool:
    """Whether a run is of the six assets, some of them at least, and of nothing else; whoever asked for it."""
    chosen = {key.to_user_string() for key in run.asset_selection or ()}
    return run.job_name == hourly_usage.name or (bool(chosen) and chosen <= set(ASSETS))
