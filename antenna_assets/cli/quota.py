"""The commands below `antenna quota`: `set`, `import` and `show`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antenna_assets.cli.console import out
from antenna_assets.cli.database import database
from antenna_assets.cli.options import instant
from antenna_assets.domain.counted import counted

if TYPE_CHECKING:
    from antenna_assets.operations.quotas.changes import Changed

app = typer.Typer(
    name="quota",
    help="Quotas of users and plans: set, import, show.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; show who would be over, or over no more.")
]


@app.command("set")
def set_(
    quota: Annotated[
        str, typer.Option(help="Bytes, `unlimited`, or `plan`: no quota of its own, but that of its plan.")
    ],
    user: Annotated[str | None, typer.Argument(help="The user's id.")] = None,
    plan: Annotated[
        str | None, typer.Option(help="Change this plan instead; it is made if it is new.")
    ] = None,
    period: Annotated[str, typer.Option(help="hour, day or month.")] = "hour",
    valid_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Correct the past from this instant on, such as 2026-11-20T10:00Z, until the next change.",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Set a user's own quota or that of a plan, from now on or from an earlier instant on.

    Hours, days and months are judged by the quota of their end. Those that a correction concerns are
    published again.
    """
    from antenna_assets.operations.quotas.changes import change_plan, change_user
    from antenna_assets.operations.quotas.quota import parse_period, parse_quota

    if (user is None) == (plan is None):
        raise typer.BadParameter("expected the id of a user, or --plan NAME")
    parsed, of, since = parse_quota(quota), parse_period(period), instant(valid_from)
    with database("quota") as (_, connection):
        if plan is not None:
            changed = change_plan(connection, plan, of, parsed, valid_from=since, dry_run=dry_run)
        else:
            changed = change_user(connection, user or "", of, parsed, valid_from=since, dry_run=dry_run)
    _say(changed, dry_run)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV with the columns id, period, quota, perhaps valid_from.")],
    dry_run: DryRun = False,
) -> None:
    """Set the quotas of a CSV file, all or none."""
    from antenna_assets.operations.quotas.csv_file import import_quotas

    with database("quota") as (_, connection):
        changed = import_quotas(connection, file, dry_run=dry_run)
    _say(changed, dry_run)


@app.command()
def show(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Show a user's quotas: its own, its plan's, what is in force, and the history."""
    from dataclasses import asdict

    from antenna_assets.cli.quota_tables import quota_tables
    from antenna_assets.operations.quotas.show import quotas_of

    with database("quota") as (_, connection):
        found = quotas_of(connection, user)
    if as_json:
        typer.echo(json.dumps(asdict(found), default=lambda when: when.isoformat()))
        return
    if not found.known:
        out.print("the user is not in user_metadata")
    for table in quota_tables(found):
        out.print(table)


def _say(changed: "Changed", dry_run: bool) -> None:
    from antenna_assets.cli.quota_tables import changed_lines

    for line in changed_lines(changed):
        out.print(line, soft_wrap=isinstance(line, str))
    changes = counted(changed.changes, "change")
    if dry_run:
        out.print(f"a dry run of {changes}: nothing was changed")
    elif changed.verdicts.hours or changed.periods:
        out.print(f"{changes} made; the sensors have these published again")
    else:
        out.print(f"{changes} made")
