"""Quotas and the verdicts that a change of them concerns, as tables for a terminal."""

from collections.abc import Iterator

from rich.console import RenderableType

from antenna_assets.domain.counted import counted
from antenna_assets.domain.fitting_table import FittingTable, number_columns
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.listing import and_more
from antenna_assets.domain.safe_text import safe_cell
from antenna_assets.operations.quotas.changes import Changed
from antenna_assets.operations.quotas.quota import quota_text
from antenna_assets.operations.quotas.show import UserQuotas
from antenna_assets.operations.quotas.verdicts import Verdicts


def changed_lines(changed: Changed) -> Iterator[RenderableType]:
    """Yield the verdicts that a change concerns, and how many there are."""
    verdicts = changed.verdicts
    if changed.what_if_since is not None:
        yield (
            "A quota from now on changes no published hour. As if it had held since"
            f" {hour_key(changed.what_if_since)},"
            f" in {counted(len(verdicts.hours), 'published hour')} with bytes of these users:"
        )
    elif verdicts.hours:
        yield (
            f"{counted(len(verdicts.hours), 'published hour is', 'published hours are')} concerned,"
            f" {hour_key(verdicts.hours[0])} to {hour_key(verdicts.hours[-1])}:"
        )
    else:
        yield "no published hour is concerned"
    if verdicts.shown:
        yield _verdicts(verdicts)
    elif verdicts.hours:
        yield "nobody would be over who was not, and nobody over no more"
    for period, days in changed.periods.items():
        yield (
            f"{counted(len(days), f'published {period} is', f'published {period}s are')} concerned,"
            f" from {days[0]:%Y-%m-%d} on"
        )
    if verdicts.without_users:
        yield (
            f"{counted(verdicts.without_users, 'hour')} cannot be judged here, as PostgreSQL no longer keeps"
            " the users; `antenna backfill` publishes them again"
        )


def _verdicts(verdicts: Verdicts) -> FittingTable:
    table = FittingTable("hour", "user", "verdict", *number_columns("bytes", "quota"))
    for one in verdicts.shown:
        verdict = "over" if one.over else "over no more"
        table.add_row(
            hour_key(one.hour), safe_cell(one.user), verdict, f"{one.bytes:,}", quota_text(one.quota)
        )
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
