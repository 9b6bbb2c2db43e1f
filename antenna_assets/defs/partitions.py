"""The hourly partitions, in UTC, and the hours of a run.

Hours are defined in `domain/hours.py`; whether one is closed is in the ledger.
"""

import warnings
from datetime import UTC, datetime

import dagster as dg

from antenna_assets.domain.hours import HOUR, KEY_FORMAT, hour_of, range_of_hours
from antenna_assets.settings import load_settings

HOURS = dg.HourlyPartitionsDefinition(start_date=load_settings().start, timezone="UTC", fmt=KEY_FORMAT)

# Known and pinned: otherwise shown before every run, once for each asset and check.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`", category=dg.BetaWarning)
warnings.filterwarnings(
    "ignore", message="Parameter `allow_nonexistent_upstream_partitions`", category=dg.BetaWarning
)
warnings.filterwarnings(
    "ignore", message="Specifying a partitions_def on an AssetCheckSpec", category=dg.PreviewWarning
)

POOL = "hours"
"""Concurrency pool of the runs of hours; its limit is in `docker/dagster.yaml`."""

HOURS_PER_BACKFILL_RUN = 48
"""The most hours of a run of a backfill. To start a run takes as much as nine hours (decision 34)."""

BACKFILL_POLICY = dg.BackfillPolicy.multi_run(max_partitions_per_run=HOURS_PER_BACKFILL_RUN)


def first_and_end() -> tuple[datetime, datetime]:
    """The first hour that is a partition now, and the end of the last one, by this machine's clock.

    They are equal if there is none.
    """
    first, last = HOURS.get_first_partition_window(), HOURS.get_last_partition_window()
    if first is None or last is None:
        start = HOURS.start.astimezone(UTC)
        return start, start
    return hour_of(first.start), hour_of(last.start) + HOUR


def hours_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> list[datetime]:
    """The hours of a run, ascending.

    Raises:
        NotAnHour: a key is not canonical, or the range is reversed. Dagster itself takes `...-03:30` for
            04:00, and a reversed range for no hours, which succeeds.
    """
    range_ = context.partition_key_range
    return range_of_hours(range_.start, range_.end)
