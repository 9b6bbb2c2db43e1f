"""The jobs: all six assets of an hour or a range of hours, those of days, and those of months."""

import dagster as dg

from antenna_assets.domain.schema import ASSETS

hourly_usage = dg.define_asset_job(
    "hourly_usage",
    selection=dg.AssetSelection.assets(*ASSETS),
    description="From landed files of closed hours to bytes by antenna, user and app, and users over quota.",
)


def publishes_hours(run: dg.DagsterRun) -> bool:
    """Whether a run materializes only the six assets, or some of them, whoever requested it."""
    chosen = {key.to_user_string() for key in run.asset_selection or ()}
    return run.job_name == hourly_usage.name or (bool(chosen) and chosen <= set(ASSETS))


daily_usage = dg.define_asset_job(
    "daily_usage",
    selection=dg.AssetSelection.assets("bytes_agg_user_1d", "users_over_quota_1d"),
    description="From published hours to bytes of users by day, and users over the quota of a day.",
)

monthly_usage = dg.define_asset_job(
    "monthly_usage",
    selection=dg.AssetSelection.assets("users_over_quota_1mo"),
    description="From published days to users over the quota of a month.",
)
