"""Quotas and the verdicts that a change of them concerns, as tables for a terminal."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime

from rich.console import RenderableType

from antenna_assets.domain.counted import counted
from antenna_assets.domain.fitting_table import FittingTable, number_columns
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.listing import and_more
from antenna_assets.domain.safe_text import safe_cell
from antenna_assets.operations.quotas.changes import Changed
from antenna_assets.operations.quotas.quota import quota_text
from antenna_assets.operations.quotas.show import UserQuotas
from antenna_assets.operations.quotas.verdicts import PeriodVerdicts, Verdicts


def changed_lines(changed: Changed) -> Iterator[RenderableType]:
    """Yield the verdicts that a change concerns, and how many there are."""
    if changed.of_hours:
        yield from _of_hours(changed)
    for period, verdicts in changed.of_periods.items():
        yield from _of_periods(period, verdicts, again=changed.periods.get(period, []))


def _of_hours(changed: Changed) -> Iterator[RenderableType]:
    verdicts = changed.verdicts
    hours = [hour_key(hour) for hour in verdicts.hours]
    since = None if changed.what_if_since is None else hour_key(changed.what_if_since)
    yield _concerned("hour", hours, since)
    yield from _listed("hour", hours, verdicts)
    if verdicts.without_users:
        yield (
            f"{counted(verdicts.without_users, 'hour')} cannot be judged here, as PostgreSQL no longer keeps"
            " the users; `antenna backfill` publishes them again"
        )


def _of_periods(period: str, verdicts: PeriodVerdicts, *, again: list[date]) -> Iterator[RenderableType]:
    since = None if verdicts.what_if_first is None else verdicts.what_if_first.isoformat()
    days = [day.isoformat() for day in verdicts.days]
    yield _concerned(period, days, since)
    yield from _listed(period, days, verdicts)
    if again:
        yield f"to be published again: {counted(len(again), f'published {period}')} from {again[0]} on"


def _concerned(period: str, keys: Sequence[str], what_if_since: str | None) -> str:
    """How many published hours, days or months have bytes of the users.

    Args:
        keys: their partition keys.
    """
    end = ":" if keys else ""
    if what_if_since is not None:
        return (
            f"A quota from now on changes no published {period}. As if it had held since {what_if_since},"
            f" in {counted(len(keys), f'published {period}')} with bytes of these users{end}"
        )
    if keys:
        many = counted(len(keys), f"published {period} is", f"published {period}s are")
        return f"{many} concerned, {keys[0]} to {keys[-1]}:"
    return f"no published {period} is concerned"


def _listed(
    period: str, keys: Sequence[str], verdicts: Verdicts | PeriodVerdicts
) -> Iterator[RenderableType]:
    if verdicts.shown:
        yield _verdicts(period, verdicts)
    elif keys:
        yield "nobody would be over who was not, and nobody over no more"


def _verdicts(period: str, verdicts: Verdicts | PeriodVerdicts) -> FittingTable:
    table = FittingTable(period, "user", "verdict", *number_columns("bytes", "quota"))
    for one in verdicts.shown:
        when = hour_key(one.when) if isinstance(one.when, datetime) else one.when.isoformat()
        verdict = "over" if one.over else "over no more"
        table.add_row(when, safe_cell(one.user), verdict, f"{one.bytes:,}", quota_text(one.quota))
    more = and_more(verdicts.over + verdicts.no_longer, len(verdicts.shown))
    totals = f"{verdicts.over:,} over, {verdicts.no_longer:,} over no more"
    table.caption = f"{more}; in all {totals}" if more else totals
    return table


def quota_tables(found: UserQuotas) -> Iterator[RenderableType]:
    """Yield what is in force, and the history."""
    of_plan = {one.period: quota_text(one.quota) for one in found.of_plan}
    table = FittingTable("period", *number_columns("own", "plan", "in force"))
    for one in found.in_force:
        own = quota_text(one.quota) if one.source == "own" else "-"
        in_force = "no quota" if one.source is None else quota_text(one.quota)
        table.add_row(one.period, own, of_plan.get(one.period, "-"), in_force)
    if found.plan is not None:
        table.caption = f"plan {safe_cell(found.plan)}"
    yield table
    if found.history:
        history = FittingTable("period", "from", "to", *number_columns("own quota"), title="History")
        for change in found.history:
            history.add_row(
                change.period,
                "since ever" if change.valid_from is None else f"{change.valid_from:%Y-%m-%d %H:%M:%S.%f}",
                "" if change.valid_to is None else f"{change.valid_to:%Y-%m-%d %H:%M:%S.%f}",
                quota_text(change.quota),
            )
        history.caption = "times in UTC"
        yield history
