"""The hourly partitions, in UTC, and which of them a run asks for.

What an hour is, is in `hours.py`; whether it is closed, in the ledger.
"""

import warnings
from datetime import datetime

import dagster as dg

from antenna_assets.hours import KEY_FORMAT, NotAnHour, parse_hour
from antenna_assets.requests import HOURS_PER_RUN
from antenna_assets.settings import load_settings

HOURS = dg.HourlyPartitionsDefinition(start_date=load_settings().start, timezone="UTC", fmt=KEY_FORMAT)

# Known and pinned: said once here instead of six times in front of every run.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`", category=dg.BetaWarning)

BACKFILL_POLICY = dg.BackfillPolicy.multi_run(max_partitions_per_run=HOURS_PER_RUN)


def hours_of(context: dg.AssetExecutionContext) -> list[datetime]:
    """The hours that a run asks for, ascending.

    Raises:
        NotAnHour: a key is not canonical, or the range is reversed. Dagster itself takes `...-03:30` for 04:00, and a
            range that ends before it begins for no hours at all, which succeeds.
    """
    range_ = context.partition_key_range
    first, last = parse_hour(range_.start), parse_hour(range_.end)
    if last < first:
        raise NotAnHour(
            f"expected a range from its first hour to its last, found {range_.start} to {range_.end}; swap the two"
        )
    return [parse_hour(key) for key in context.partition_keys]
