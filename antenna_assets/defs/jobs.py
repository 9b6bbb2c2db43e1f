"""The jobs: all six assets of an hour or a range of hours, those of days, and those of months."""

from collections.abc import Mapping

import dagster as dg

from antenna_assets.domain.periods import Period
from antenna_assets.domain.schema import ASSETS, PERIOD_TABLES

hourly_usage = dg.define_asset_job(
    "hourly_usage",
    selection=dg.AssetSelection.assets(*ASSETS),
    description="From landed files of closed hours to bytes by antenna, user and app, and users over quota.",
)


def publishes_hours(run: dg.DagsterRun) -> bool:
    """Whether a run materializes only the six assets, or some of them, whoever requested it."""
    chosen = {key.to_user_string() for key in run.asset_selection or ()}
    return run.job_name == hourly_usage.name or (bool(chosen) and chosen <= set(ASSETS))


_OF_PERIOD: Mapping[Period, list[str]] = {
    "day": [name for name, table in PERIOD_TABLES.items() if table.period == "day"],
    "month": [name for name, table in PERIOD_TABLES.items() if table.period == "month"],
}

daily_usage = dg.define_asset_job(
    "daily_usage",
    selection=dg.AssetSelection.assets(*_OF_PERIOD["day"]),
    description="From published hours to bytes of users by day, and users over the quota of a day.",
)

monthly_usage = dg.define_asset_job(
    "monthly_usage",
    selection=dg.AssetSelection.assets(*_OF_PERIOD["month"]),
    description="From published days to users over the quota of a month.",
)

PERIOD_JOBS = {"day": daily_usage, "month": monthly_usage}


def publishes_periods(run: dg.DagsterRun, period: Period) -> bool:
    """Whether a run materializes only assets of days, or of months, whoever requested it."""
    chosen = {key.to_user_string() for key in run.asset_selection or ()}
    return run.job_name == PERIOD_JOBS[period].name or (bool(chosen) and chosen <= set(_OF_PERIOD[period]))
