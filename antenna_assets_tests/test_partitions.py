"""Which hours a run is for, as its tags say it."""

import warnings
from datetime import datetime

import dagster as dg
import pytest

from antenna_assets.defs.partitions import BACKFILL_POLICY, HOURS, hours_of
from antenna_assets.defs.requested_runs import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from antenna_assets.domain.hours import NotAnHour, hour_key


def hours_for(**tags: str) -> list[str]:
    found: list[datetime] = []

    warnings.filterwarnings("ignore", category=dg.BetaWarning)

    @dg.asset(partitions_def=HOURS, backfill_policy=BACKFILL_POLICY)
    def probe(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        found.extend(hours_of(context))
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        dg.Definitions(
            assets=[probe], jobs=[dg.define_asset_job("probing", [probe])], executor=dg.in_process_executor
        ).resolve_job_def("probing").execute_in_process(instance=instance, tags=tags)
    return [hour_key(hour) for hour in found]


def range_tags(first: str, last: str) -> dict[str, str]:
    return {RANGE_START_TAG: first, RANGE_END_TAG: last}


def test_a_run_is_for_its_hour_or_for_each_hour_of_its_range() -> None:
    assert hours_for(**{PARTITION_TAG: "2026-02-01-23:00"}) == ["2026-02-01-23:00"]
    assert hours_for(**range_tags("2026-02-01-23:00", "2026-02-02-01:00")) == [
        "2026-02-01-23:00",
        "2026-02-02-00:00",
        "2026-02-02-01:00",
    ]


def test_a_range_that_ends_before_it_begins_is_an_error_and_not_a_success_for_no_hours() -> None:
    with pytest.raises(NotAnHour, match="found 2026-02-02-01:00 to 2026-02-01-23:00; swap the two"):
        hours_for(**range_tags("2026-02-02-01:00", "2026-02-01-23:00"))
