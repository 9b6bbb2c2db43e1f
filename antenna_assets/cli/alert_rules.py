"""The commands below `antenna alerts` that decide what is an alert: `watch`, `rules`, `rule` and `test`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from antenna_assets.cli.console import out, progress_bar, say, stop_on_signals
from antenna_assets.cli.database import database
from antenna_assets.cli.options import FirstHour, LastHour
from antenna_assets.domain.counted import counted
from antenna_assets.domain.fitting_table import FittingTable, number_columns
from antenna_assets.domain.safe_text import safe_text

if TYPE_CHECKING:
    from antenna_assets.operations.alerts.history import PastPeriod

PERIODS_SHOWN = 24

Period = Annotated[Literal["hour", "day", "month"], typer.Option(help="Whose quota it is about.")]
User = Annotated[str | None, typer.Option(help="Of this user alone.")]
Plan = Annotated[str | None, typer.Option(help="Of the users of this plan.")]
CoolDown = Annotated[
    str | None,
    typer.Option(help="No second notice of one percentage within this time, such as '6 hours'."),
]


def watch(
    once: Annotated[bool, typer.Option("--once", help="Look at what is new by now, and exit.")] = False,
) -> None:
    """Raise, confirm, correct and resolve alerts as data arrives, until Ctrl-C or SIGTERM.

    `antenna alerts deliver` sends the notices. A second watch waits until the first one ends.
    """
    from antenna_assets.operations.alerts.watch import Watch
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    with stop_on_signals() as stop:
        watching = Watch(postgres_url(settings), settings.lake_uri, say=say, stop=stop)
        if once:
            seen = watching.once()
            out.print(
                f"{counted(seen.batches, 'batch', 'batches')}, {counted(seen.certificates, 'certificate')}:"
                f" {counted(seen.notices, 'notice')}"
            )
            return
        watching.run()
    say("stopped")


def rules() -> None:
    """List the percentages at which alerts are raised, for everybody, plans and users."""
    from antenna_assets.operations.alerts.rules import rules as read
    from antenna_assets.settings import duration_text

    with database("alerts") as (_, connection):
        found = read(connection)
    table = FittingTable("of", "period", "percentages", "cool-down")
    for one in found:
        of = "everybody"
        if one.plan is not None:
            of = f"plan {escape(safe_text(one.plan))}"
        if one.user_id is not None:
            of = f"user {escape(safe_text(one.user_id))}"
        cool_down = duration_text(one.cool_down) if one.cool_down else "none"
        table.add_row(of, one.period, ", ".join(map(str, one.percents)), cool_down)
    table.caption = "the closest rule counts as a whole: the user's, else the plan's, else everybody's"
    out.print(table)


def rule(
    period: Period,
    percents: Annotated[
        str | None, typer.Option(help="Percentages of the quota, such as '80,100'; 1 to 1000.")
    ] = None,
    user: User = None,
    plan: Plan = None,
    cool_down: CoolDown = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the rule of a user or a plan.")] = False,
) -> None:
    """Set a rule: of a user, of a plan, or without either of everybody else."""
    from antenna_assets.operations.alerts.rules import remove_rule, set_rule

    if user is not None and plan is not None:
        raise typer.BadParameter("expected --user or --plan, found both")
    if remove is (percents is not None):
        raise typer.BadParameter("expected either --percents or --remove")
    wanted, pause = _percents(percents), _pause(cool_down)
    with database("alerts") as (_, connection):
        if wanted is None:
            remove_rule(connection, period, user=user, plan=plan)
        else:
            set_rule(connection, period, wanted, pause or timedelta(0), user=user, plan=plan)
    out.print("[green]done[/green]: it counts from the next look of `antenna alerts watch` on")


def try_rule(
    from_: FirstHour,
    to: LastHour = None,
    period: Period = "hour",
    percents: Annotated[
        str | None, typer.Option(help="Percentages to try, such as '80,100'. Default: the rules in force.")
    ] = None,
    cool_down: CoolDown = None,
) -> None:
    """Show what a rule would have sent of published hours, or of the days or months they lie in.

    These are those of the billing zone. Nothing is written or sent.
    """
    from antenna_assets.domain.hours import HOUR, range_of_hours
    from antenna_assets.operations.alerts.history import Rule, past_hours, past_periods

    hours = range_of_hours(from_, to or from_)
    wanted = Rule(_percents(percents), _pause(cool_down))
    with database("alerts") as (_, connection):
        if period == "hour":
            found = past_hours(connection, hours, wanted)
        else:
            found = past_periods(connection, period, hours[0], hours[-1] + HOUR, wanted)
        periods = list(_with_progress(found))
    if any(_is_judged(one) for one in periods):
        out.print(_history(periods, period))
    if not_known := _not_known(periods, period):
        out.print(not_known, soft_wrap=True)


def _with_progress(found: "Iterable[PastPeriod]") -> "Iterable[PastPeriod]":
    with progress_bar("periods") as advance:
        for number, one in enumerate(found, 1):
            yield one
            advance(number)


def _is_judged(one: "PastPeriod") -> bool:
    return one.published in {"yes", "in part"}


def _not_known(periods: "Sequence[PastPeriod]", period: str) -> str:
    """How many periods are published, and what is not known of the others; empty if all of them are."""
    states = Counter(one.published for one in periods)
    parts = [f"published: {states['yes'] + states['no longer kept']:,} of {counted(len(periods), period)}"]
    if count := states["in part"]:
        parts.append(f"{count:,} in part, of which the days that are published count")
    if count := states["no longer kept"]:
        parts.append(f"of {count:,} PostgreSQL no longer keeps the users")
    if count := states["no"] + states["no longer kept"]:
        parts.append(f"what would have been raised in {count:,} of them is not known")
    return "; ".join(parts) if len(parts) > 1 else ""


def _history(periods: "Sequence[PastPeriod]", period: str) -> FittingTable:
    notices: Counter[int] = sum((one.users for one in periods), Counter())
    quiet: Counter[int] = sum((one.quiet for one in periods), Counter())
    percents = sorted({*notices, *quiet})
    table = FittingTable(period, *number_columns(*(f"{percent} %" for percent in percents)), title="Users")
    partly = any(one.published != "yes" for one in periods)
    if partly:
        table.add_column("published")
    for one in periods[-PERIODS_SHOWN:]:
        numbers = [f"{one.users[percent]:,}" if _is_judged(one) else "-" for percent in percents]
        table.add_row(one.name, *numbers, *([one.published] if partly else []))
    table.add_section()
    table.add_row("all", *(f"{notices[percent]:,}" for percent in percents))
    if quiet:
        table.add_row("in cool-downs", *(f"{quiet[percent]:,}" for percent in percents))
    shown = "" if len(periods) <= PERIODS_SHOWN else f"the newest {PERIODS_SHOWN} shown, "
    judged = counted(sum(map(_is_judged, periods)), period)
    table.caption = (
        f"{judged}, {shown}{counted(notices.total(), 'alert')} raised;"
        " what is confirmed and resolved later makes a notice each as well"
    )
    return table


def _percents(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < one <= 1000 for one in found):
        raise typer.BadParameter(f"expected percentages from 1 to 1000, such as '80,100', found {text!r}")
    return found


def _pause(text: str | None) -> timedelta | None:
    from antenna_assets.settings import duration

    if text is None:
        return None
    try:
        return duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
