"""`antenna allowance`: whether a user may transfer more in its running hour, day or month."""

import json
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from antenna_assets.cli.console import out
from antenna_assets.cli.database import database
from antenna_assets.domain.counted import counted
from antenna_assets.domain.fitting_table import FittingTable
from antenna_assets.domain.safe_text import safe_text

if TYPE_CHECKING:
    from antenna_assets.operations.allowance import Allowance


def allowance(
    user: Annotated[str, typer.Argument(metavar="ID", help="The user's id.")],
    bytes_: Annotated[
        int, typer.Option("--bytes", min=0, max=2**63 - 1, help="How many bytes it is about to transfer.")
    ] = 1,
    period: Annotated[
        Literal["hour", "day", "month"], typer.Option(help="Whose quota is asked about.")
    ] = "hour",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether a user may transfer more bytes, and what the answer rests on.

    Exit code 0: yes. 3: no. 4: neither, since the user is unknown, has no quota, or what is counted is stale
    or incomplete.
    """
    from antenna_assets.operations.allowance import allowance_of

    with database("allowance") as (_, connection):
        answer = allowance_of(connection, user, bytes_=bytes_, period=period)
    if as_json:
        out.print_json(json.dumps(vars(answer), default=_plain))
    else:
        out.print(_table(answer))
    if answer.allowed is not True:
        raise typer.Exit(4 if answer.allowed is None else 3)


def _plain(value: object) -> object:
    """A value as JSON has it: whole numbers as numbers, instants as text."""
    if isinstance(value, Decimal):
        return int(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"expected a number or an instant, found {type(value).__name__}")


def _table(answer: "Allowance") -> FittingTable:
    title = f"{escape(safe_text(answer.user))}, {answer.period} from {answer.starts:%Y-%m-%d %H:%M} UTC"
    table = FittingTable("what", "value", title=title)
    colour = {True: "green", False: "red", None: "yellow"}[answer.allowed]
    table.add_row("answer", f"[{colour}]{answer.answer}[/{colour}]")
    table.add_row("requested", counted(answer.requested, "byte"))
    quota = {"unlimited": "unlimited", "no quota": "none", "unknown user": "none"}.get(answer.answer)
    table.add_row("quota", quota or f"{answer.quota or 0:,} bytes")
    table.add_row("used", f"{answer.used:,} bytes: {answer.published:,} published, {answer.live:,} live")
    if answer.remaining is not None:
        table.add_row("remaining", f"{answer.remaining:,} bytes until {answer.ends:%Y-%m-%d %H:%M} UTC")
    if answer.as_of is None:
        table.add_row("as of", "never: the stream has not read everything yet")
    else:
        table.add_row("as of", f"{answer.as_of:%Y-%m-%d %H:%M:%S} UTC, {answer.lag_seconds:.1f} s ago")
    table.add_row("exact", "yes" if answer.exact else "no: the user may have used more")
    if answer.certificate is not None:
        table.add_row("certificate", f"number {answer.certificate}, generation {answer.generation}")
    return table
