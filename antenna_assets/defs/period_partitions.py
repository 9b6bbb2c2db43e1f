"""The daily and monthly partitions, in the billing zone, and the periods of a run.

Dagster names days and shows when they end in the billing zone; where a user's day begins is defined in the
ledger, which also says whether a day is over (`ledger/period_generations.py`).
"""

from datetime import date
from zoneinfo import ZoneInfo

import dagster as dg

from antenna_assets.domain.periods import DAY_FORMAT, Period, next_period, range_of_periods
from antenna_assets.settings import Settings, load_settings

DAYS_PER_RUN = 7
MONTHS_PER_RUN = 12

POOL = "periods"
"""Concurrency pool of the runs of days and months: they keep no hours waiting."""


def first_day(settings: Settings) -> date:
    """The day of the first hourly partition, in the billing zone."""
    return settings.start.astimezone(ZoneInfo(settings.billing_zone)).date()


def partitions_of(
    settings: Settings,
) -> tuple[dg.DailyPartitionsDefinition, dg.MonthlyPartitionsDefinition]:
    """The daily and the monthly partitions of these settings."""
    day, zone = first_day(settings), settings.billing_zone
    days = dg.DailyPartitionsDefinition(start_date=day.isoformat(), timezone=zone, fmt=DAY_FORMAT)
    month = day.replace(day=1).isoformat()
    return days, dg.MonthlyPartitionsDefinition(start_date=month, timezone=zone, fmt=DAY_FORMAT)


DAYS, MONTHS = partitions_of(load_settings())

PARTITIONS: dict[Period, dg.TimeWindowPartitionsDefinition] = {"day": DAYS, "month": MONTHS}


def first_and_end_of(period: Period) -> tuple[date, date]:
    """The first period that is a partition now, and the one after the last, by this machine's clock.

    They are equal if there is none.
    """
    first, last = PARTITIONS[period].get_first_partition_key(), PARTITIONS[period].get_last_partition_key()
    if first is None or last is None:
        day = PARTITIONS[period].start.date()
        return day, day
    return date.fromisoformat(first), next_period(period, date.fromisoformat(last))


def periods_of(context: dg.AssetExecutionContext, period: Period) -> list[date]:
    """The periods of a run, ascending, by their first days.

    Raises:
        NotAPeriod: a key is not canonical, or the range is reversed.
    """
    range_ = context.partition_key_range
    return range_of_periods(period, range_.start, range_.end)
