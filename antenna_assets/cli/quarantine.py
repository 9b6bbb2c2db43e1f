"""The commands below `antenna quarantine`: `list`, `show`, `export` and `replay`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from antenna_assets.cli.console import out
from antenna_assets.cli.database import database
from antenna_assets.cli.options import instant
from antenna_assets.domain.counted import counted

if TYPE_CHECKING:
    from antenna_assets.operations.quarantine.messages import Selection

app = typer.Typer(
    name="quarantine",
    help="Rejected messages: list, show, export, and replay them after a fix.",
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)

Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", help="Only messages with this reason. Can be repeated."),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--from", help="Only messages that Kafka received from then on, such as 2026-11-20T10:00:00Z."
    ),
]
Until = Annotated[str | None, typer.Option("--to", help="Only messages that Kafka received before then.")]
FirstBatch = Annotated[
    int | None, typer.Option("--from-batch", help="Only messages that this batch or a later one rejected.")
]
LastBatch = Annotated[
    int | None, typer.Option("--to-batch", help="Only messages that this batch or an earlier one rejected.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most this many messages.")]


def _selection(
    reasons: list[str] | None,
    since: str | None,
    until: str | None,
    first_batch: int | None,
    last_batch: int | None,
    limit: int | None = None,
) -> "Selection":
    from antenna_assets.operations.quarantine.messages import Selection, known_reason

    # Before the database is opened: a misspelt reason does not need one.
    return Selection(
        reasons=tuple(known_reason(reason) for reason in reasons or ()),
        since=instant(since),
        until=instant(until),
        first_batch=first_batch,
        last_batch=last_batch,
        limit=limit,
    )


@app.callback()
def quarantine(context: typer.Context) -> None:
    """Rejected messages: list, show, export, and replay them after a fix. Without a command: list."""
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_(
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    first_batch: FirstBatch = None,
    last_batch: LastBatch = None,
) -> None:
    """Count the messages in quarantine by reason, with the first of each as an example."""
    from antenna_assets.cli.quarantine_tables import summary_table
    from antenna_assets.operations.quarantine.messages import by_reason

    selection = _selection(reason, since, until, first_batch, last_batch)
    with database("quarantine") as (settings, connection):
        summaries = by_reason(connection, settings.lake_uri, selection)
    if summaries:
        out.print(summary_table(summaries))
    else:
        out.print("no message is in quarantine" if _is_everything(selection) else "no message is selected")


@app.command()
def show(
    partition: Annotated[int, typer.Argument(min=0, help="Kafka partition.")],
    offset: Annotated[int, typer.Argument(min=0, help="Offset in the partition.")],
) -> None:
    """Show one rejected message: where it came from, why it was rejected, and its bytes."""
    from antenna_assets.cli.quarantine_tables import message_lines
    from antenna_assets.operations.quarantine.messages import find

    with database("quarantine") as (settings, connection):
        found = find(connection, settings.lake_uri, partition, offset)
    for message, replayed_by in found:
        for line in message_lines(message, replayed_by):
            out.print(line, markup=False, soft_wrap=True)


@app.command()
def export(
    output: Annotated[
        Path, typer.Option(help="File to create: parquet if its name ends in .parquet, JSON lines otherwise.")
    ],
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    first_batch: FirstBatch = None,
    last_batch: LastBatch = None,
    limit: Limit = None,
) -> None:
    """Write selected messages to a file, with coordinates and reasons. They stay in quarantine."""
    from antenna_assets.operations.quarantine.export import export as write
    from antenna_assets.operations.quarantine.messages import select

    selection = _selection(reason, since, until, first_batch, last_batch, limit)
    with database("quarantine") as (settings, connection):
        messages = select(connection, settings.lake_uri, selection)
    write(messages, output)
    out.print(f"wrote {counted(messages.num_rows, 'message')} to {output}", markup=False, soft_wrap=True)


@app.command()
def replay(
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    first_batch: FirstBatch = None,
    last_batch: LastBatch = None,
    limit: Limit = None,
    every: Annotated[bool, typer.Option("--all", help="Replay everything in quarantine.")] = False,
    transform: Annotated[
        Path | None,
        typer.Option(
            help="Python file with `def transform(value: bytes) -> bytes | None`; None skips a message."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be accepted.")] = False,
) -> None:
    """Parse selected messages again, transformed or not, and add what is now accepted to its hours, once.

    Events older than the horizon are accepted, back to the first hour. The stream may run meanwhile.
    """
    from antenna_assets.cli.quarantine_tables import plan_tables
    from antenna_assets.clients.clock import database_now
    from antenna_assets.operations.quarantine.message_transform import load_transform
    from antenna_assets.operations.quarantine.replay import execute, plan

    selection = _selection(reason, since, until, first_batch, last_batch, limit)
    if _is_everything(selection) and not every:
        raise typer.BadParameter("expected a selection such as --reason wrong_type, or --all")
    loaded = load_transform(transform) if transform else None
    with database("quarantine") as (settings, connection):
        planned = plan(
            connection,
            settings,
            selection,
            clock=database_now(connection),
            transform=loaded,
        )
        for table in plan_tables(planned):
            out.print(table, soft_wrap=isinstance(table, str))
        if dry_run:
            out.print("a dry run: nothing was changed")
            return
        batch = execute(connection, settings, planned, transform=loaded)
    out.print(f"batch {batch} replayed {counted(planned.accepted.num_rows, 'message')}")


def _is_everything(selection: "Selection") -> bool:
    return selection == type(selection)()
