"""The assets of days and months, and the two steps that publish them."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date

import dagster as dg

from antenna_assets.clients.postgres import snapshot
from antenna_assets.defs.assets.declared import published_spec
from antenna_assets.defs.assets.hourly import enriched_usage
from antenna_assets.defs.assets.period_reports import PeriodsRunReport
from antenna_assets.defs.assets.sources import user_metadata
from antenna_assets.defs.checks import DAYS_ADD_UP
from antenna_assets.defs.period_partitions import (
    DAYS_PER_RUN,
    MONTHS_PER_RUN,
    POOL,
    periods_of,
)
from antenna_assets.defs.resources import EngineResource, LakeResource, PostgresResource
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.publishing.days import publish_day
from antenna_assets.publishing.months import publish_month
from antenna_assets.publishing.outcomes import PublishingRun
from antenna_assets.settings import load_settings
from antenna_assets.verify.claims.periods import quota_periods_add_up

_AGAIN = "Late events replace the {0} as a whole, with its next generation."

bytes_agg_user_1d = published_spec(
    "bytes_agg_user_1d",
    deps=[
        dg.AssetDep(
            enriched_usage,
            partition_mapping=dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True),
        )
    ],
    description=(
        "Bytes of the day for each user. Key: day (by the user's calendar) and id.\n\nThe day lies in the"
        " user's own time zone, or in the billing zone; `date` is its first instant in UTC. "
        + _AGAIN.format("day")
    ),
)

users_over_quota_1d = published_spec(
    "users_over_quota_1d",
    deps=[bytes_agg_user_1d, user_metadata],
    description=(
        "One row for each user whose bytes of the day are above the quota in force at the day's last instant."
        " Key: day (by the user's calendar) and id.\n\n`date` is the day's first instant in UTC. "
        + _AGAIN.format("day")
    ),
)

users_over_quota_1mo = published_spec(
    "users_over_quota_1mo",
    deps=[bytes_agg_user_1d, user_metadata],
    description=(
        "One row for each user whose bytes of the month are above the quota in force at its last instant."
        " Key: month (its first day, by the user's calendar) and id.\n\n`date` is the month's first instant"
        " in UTC. A month is the sum of its days. " + _AGAIN.format("month")
    ),
)


@dg.multi_asset(
    name="publish_days",
    specs=[bytes_agg_user_1d, users_over_quota_1d],
    check_specs=[DAYS_ADD_UP],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=DAYS_PER_RUN),
    pool=POOL,
)
def publish_days(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Publish the days of the run, each in a transaction, and check them.

    If some fail, the others are published and recorded all the same, and then the step fails. Both tables of
    a day are one publication: who asks for one publishes both. A run of the check alone publishes nothing.
    """
    days, tables, zone = periods_of(context, "day"), lake.open(), load_settings().billing_zone
    report = PeriodsRunReport(context, days)
    with report.recorded(), postgres.connection() as connection:
        checked = days
        if context.selected_asset_keys:
            require_own_lake(connection, tables.root)
            run = PublishingRun(connection, tables, engine.start(), context.run.run_id)
            _publish_each(context, days, lambda day: report.add(publish_day(run, day, zone)), report)
            checked = report.published
        if context.selected_asset_check_keys:
            for day in checked:
                with snapshot(connection):
                    report.add_verdict(day, quota_periods_add_up(connection, tables, day))
    yield from report.results()


@dg.multi_asset(
    name="publish_months",
    specs=[users_over_quota_1mo],
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=MONTHS_PER_RUN),
    pool=POOL,
)
def publish_months(
    context: dg.AssetExecutionContext, postgres: PostgresResource
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Publish the months of the run, each in a transaction."""
    months, zone = periods_of(context, "month"), load_settings().billing_zone
    report = PeriodsRunReport(context, months)
    with report.recorded(), postgres.connection() as connection:
        _publish_each(
            context,
            months,
            lambda month: report.add(publish_month(connection, month, zone, context.run.run_id)),
            report,
        )
    yield from report.results()


def _publish_each(
    context: dg.AssetExecutionContext,
    days: Sequence[date],
    publish: Callable[[date], None],
    report: PeriodsRunReport,
) -> None:
    for day in days:
        try:
            publish(day)
        except Superseded as newer:
            context.log.info(f"nothing to do: {newer}")
            report.add_superseded(day)
        except AntennaError as error:
            report.add_failure(day, error)
