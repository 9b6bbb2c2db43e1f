"""The whole system on one page, in the order of the data."""

from collections.abc import Mapping

import dagster as dg

from antenna_assets.defs.assets.hourly import publish_hours
from antenna_assets.defs.assets.periods import publish_days, publish_months
from antenna_assets.defs.assets.sources import SOURCES
from antenna_assets.defs.checks import hours_are_fresh_check
from antenna_assets.defs.jobs import daily_usage, hourly_usage, monthly_usage
from antenna_assets.defs.period_sensor import ended_periods
from antenna_assets.defs.resources import default_resources
from antenna_assets.defs.sensors import closed_hours
from antenna_assets.failpoints import require_known
from antenna_assets.settings import load_settings


def build_definitions(resources: Mapping[str, object] | None = None) -> dg.Definitions:
    """All definitions; `resources` replaces some of the defaults, by name."""
    require_known()
    return dg.Definitions(
        assets=[*SOURCES, publish_hours, publish_days, publish_months],
        asset_checks=[hours_are_fresh_check],
        jobs=[hourly_usage, daily_usage, monthly_usage],
        sensors=[closed_hours, ended_periods],
        resources={**default_resources(load_settings()), **(resources or {})},
        # A process for each step takes 20 s a run, one process 4 s (measured with six assets).
        executor=dg.in_process_executor,
    )


definitions = build_definitions()
