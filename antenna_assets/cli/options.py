"""Options that several commands have."""

from datetime import UTC, datetime
from typing import Annotated

import typer

FirstHour = Annotated[str, typer.Option("--from", help="First hour, such as 2026-11-22-10:00.")]
LastHour = Annotated[
    str | None, typer.Option("--to", help="Last hour, inclusive. Default: the first hour alone.")
]


def instant(text: str | None) -> datetime | None:
    """The instant that an option names, in UTC; None if the option is not given.

    Raises:
        typer.BadParameter: it is none, or has no zone.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise typer.BadParameter(f"expected a time with a zone such as 2026-11-20T10:00:00Z, found {text!r}")
    return found.astimezone(UTC)
