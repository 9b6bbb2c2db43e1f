"""Options that several commands have."""

from typing import Annotated

import typer

FirstHour = Annotated[str, typer.Option("--from", help="First hour, such as 2026-11-22-10:00.")]
LastHour = Annotated[
    str | None, typer.Option("--to", help="Last hour, inclusive. Default: the first hour alone.")
]
