"""The six hourly assets, their checks, and the step that publishes them: hours of a run together.

One step, because hours that fail must not keep the others from being published in the same run: Dagster skips
what comes after a step that failed. What is published, and how, is in `publishing/`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime

import dagster as dg

from antenna_assets.defs.assets.declared import published_spec
from antenna_assets.defs.assets.hour_reports import HoursRunReport
from antenna_assets.defs.assets.sources import landing, user_metadata
from antenna_assets.defs.checks import SPECS as CHECK_SPECS
from antenna_assets.defs.checks import Checks
from antenna_assets.defs.partitions import BACKFILL_POLICY, POOL, hours_of
from antenna_assets.defs.resources import EngineResource, LakeResource, PostgresResource
from antenna_assets.domain.schema import ASSETS, HOURLY_TABLES
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.closed_hours import require_closed
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.publishing.outcomes import Outcomes, PublishingRun, pieces, rows_of
from antenna_assets.publishing.raw import publish_raw
from antenna_assets.publishing.tables import publish_table
from antenna_assets.publishing.usage import publish_usage
from antenna_assets.publishing.users import UsersOfRun

raw_parquet = published_spec(
    "raw_parquet",
    deps=[landing],
    description=(
        "One row for each event of the hour, as it was received. Key: kafka_partition and kafka_offset, which"
        " a topic that was made again counts anew.\n\nTimes are UTC. Late events make a closed hour dirty;"
        " its next generation holds them."
    ),
)

enriched_usage = published_spec(
    "enriched_usage",
    deps=[raw_parquet, user_metadata],
    description=(
        "One row for each event of the hour, with the user's name, e-mail and quota. Key: kafka_partition and"
        " kafka_offset, which a topic that was made again counts anew.\n\nTimes are UTC, a quota is in bytes"
        " per hour, as it was in force at the hour's last instant. An event of an unknown user keeps its"
        " bytes; its user columns are null. Late events"
        " arrive with the hour's next generation."
    ),
)

_REPLACED = "Late events replace the hour as a whole, with its next generation."

bytes_agg_antenna_1h = published_spec(
    "bytes_agg_antenna_1h",
    deps=[enriched_usage],
    description=(
        "Bytes of the hour for each antenna. Key: date (the hour's first instant, UTC) and antenna_id.\n\n"
        f"{_REPLACED}"
    ),
)

bytes_agg_user_1h = published_spec(
    "bytes_agg_user_1h",
    deps=[enriched_usage],
    description=(
        "Bytes of the hour for each user. Key: date (the hour's first instant, UTC) and id.\n\nAn unknown"
        f" user has its bytes and no e-mail. {_REPLACED}"
    ),
)

bytes_agg_app_1h = published_spec(
    "bytes_agg_app_1h",
    deps=[enriched_usage],
    description=(
        "Bytes of the hour for each application. Key: date (the hour's first instant, UTC) and app.\n\n"
        f"{_REPLACED}"
    ),
)

users_over_quota_1h = published_spec(
    "users_over_quota_1h",
    deps=[enriched_usage],
    description=(
        "One row for each known user whose bytes of the hour are above the quota. Key: date (the hour, UTC)"
        " and id.\n\nThe quota is the one that was in force at the hour's last instant, the user's own or its"
        " plan's. Late events replace the hour as a whole."
    ),
)


@dg.multi_asset(
    name="publish_hours",
    specs=[
        raw_parquet,
        enriched_usage,
        bytes_agg_antenna_1h,
        bytes_agg_user_1h,
        bytes_agg_app_1h,
        users_over_quota_1h,
    ],
    check_specs=CHECK_SPECS,
    can_subset=True,
    backfill_policy=BACKFILL_POLICY,
    pool=POOL,
)
def publish_hours(
    context: dg.AssetExecutionContext, postgres: PostgresResource, lake: LakeResource, engine: EngineResource
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Publish the hours of the run, as many together as their rows allow, and check them.

    An hour of which a newer version is published already is skipped. If hours fail, the others are published
    and recorded all the same, and then the step fails.
    """
    hours = hours_of(context)
    chosen = [name for name in ASSETS if dg.AssetKey(name) in context.selected_asset_keys]
    tables = lake.open()
    report = HoursRunReport(context, hours)
    with report.recorded(), ExitStack() as stack:
        connection = stack.enter_context(postgres.connection())
        if "raw_parquet" in chosen:
            # Before the lake is claimed: a key that is refused changes nothing.
            require_closed(connection, hours)
        if chosen:
            require_own_lake(connection, tables.root)
            # A session that is older than a forgetting may commit nothing: one from after the claim.
            connection = stack.enter_context(postgres.connection())
        rows = rows_of(connection, hours)
        run = engine.start(most_rows=max(rows.values()))
        publishing = PublishingRun(connection, tables, run, context.run.run_id)
        checks = Checks(connection, tables, run, context.selected_asset_check_keys)
        users = None
        if "enriched_usage" in chosen:
            users = UsersOfRun(connection, stack.enter_context(tables.scratch()), hours)
        for piece in pieces(rows):
            # What follows from an hour that failed is not computed. No serving table follows from another.
            left, whole = piece, piece
            for name in ASSETS:
                if name in chosen:
                    outcomes = _publish(publishing, name, left, users)
                    commit_point("publish.hours_done")
                    report.add(connection, run, name, outcomes)
                    whole = [hour for hour in whole if hour not in outcomes.failures]
                if name not in HOURLY_TABLES:
                    left = whole = report.add_verdicts(checks.of_lake_table(name, whole), whole)
            report.add_verdicts(checks.of_serving_tables(whole), whole)
    yield from report.results()


def _publish(run: PublishingRun, name: str, hours: Sequence[datetime], users: UsersOfRun | None) -> Outcomes:
    if name == "raw_parquet":
        return publish_raw(run, hours)
    if name == "enriched_usage":
        if users is None:
            raise ValueError("expected the files of users: enriched_usage is to be published")
        return publish_usage(run, hours, users)
    return publish_table(run, HOURLY_TABLES[name], hours)
