"""The commands below `antenna quarantine`: arguments in, tables out.

What they do is in `operations/quarantine/`; whatever comes from a message is shown by `domain/safe_text.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

if TYPE_CHECKING:
    import psycopg

    from antenna_assets.operations.quarantine.messages import Selection
    from antenna_assets.operations.quarantine.replay import Plan
    from antenna_assets.settings import Settings

app = typer.Typer(
    help="Rejected messages: list, show, export, and replay them after a fix.",
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)
out = Console(highlight=False, emoji=False)

EXAMPLE_LENGTH = 60
FAILURES_SHOWN = 20

Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", help="Only messages with this reason; may be given more than once."),
]
Since = Annotated[
    str | None,
    typer.Option("--from", help="Only messages that Kafka got from then on, as 2026-11-20T10:00:00Z."),
]
Until = Annotated[str | None, typer.Option("--to", help="Only messages that Kafka got before.")]
FirstBatch = Annotated[
    int | None, typer.Option("--from-batch", help="Only what this batch or a later one rejected.")
]
LastBatch = Annotated[
    int | None, typer.Option("--to-batch", help="Only what this batch or an earlier one rejected.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many messages.")]


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise typer.BadParameter(f"expected a time with a zone such as 2026-11-20T10:00:00Z, found {text!r}")
    return instant.astimezone(UTC)


def _selection(
    reasons: list[str] | None,
    since: str | None,
    until: str | None,
    first_batch: int | None,
    last_batch: int | None,
    limit: int | None = None,
) -> "Selection":
    from antenna_assets.operations.quarantine.messages import Selection, known_reason

    # Before anything is opened: a misspelt reason needs no database.
    return Selection(
        reasons=tuple(known_reason(reason) for reason in reasons or ()),
        since=_instant(since),
        until=_instant(until),
        first_batch=first_batch,
        last_batch=last_batch,
        limit=limit,
    )


@contextmanager
def _ledger() -> "Iterator[tuple[Settings, psycopg.Connection]]":
    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    with connect(postgres_url(settings), application="antenna quarantine") as connection:
        require_migrated(connection)
        yield settings, connection


@app.callback()
def quarantine(context: typer.Context) -> None:
    """Rejected messages: list, show, export, and replay them after a fix. Alone it lists."""
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
    """Count what is in quarantine by reason, with the first message of each as an example."""
    from antenna_assets.domain.safe_text import safe_cell
    from antenna_assets.operations.quarantine.messages import by_reason

    selection = _selection(reason, since, until, first_batch, last_batch)
    with _ledger() as (settings, connection):
        summaries = by_reason(connection, settings.lake_uri, selection)
    if not summaries:
        out.print(
            "no message is in quarantine" if selection == type(selection)() else "no message is selected"
        )
        return
    table = Table(
        "reason",
        Column("messages", justify="right"),
        "first, UTC",
        "last, UTC",
        Column("partition", justify="right"),
        Column("offset", justify="right"),
        Column("first message", overflow="fold"),
    )
    for one in summaries:
        example = "no value" if one.value is None else safe_cell(one.value, EXAMPLE_LENGTH)
        table.add_row(
            one.reason,
            f"{one.messages:,}",
            f"{one.first:%Y-%m-%d %H:%M:%S}",
            f"{one.last:%Y-%m-%d %H:%M:%S}",
            str(one.partition),
            str(one.offset),
            example,
        )
    out.print(table)


@app.command()
def show(
    partition: Annotated[int, typer.Argument(min=0, help="Kafka partition.")],
    offset: Annotated[int, typer.Argument(min=0, help="Offset in the partition.")],
) -> None:
    """Show one rejected message: where it came from, why it was rejected, and its bytes."""
    from antenna_assets.domain.safe_text import hex_lines, safe_text
    from antenna_assets.operations.quarantine.messages import find

    with _ledger() as (settings, connection):
        found = find(connection, settings.lake_uri, partition, offset)
    for message, replayed in found:
        lines = {
            "topic id": message["topic_id"],
            "partition": message["kafka_partition"],
            "offset": message["kafka_offset"],
            "Kafka time": message["kafka_timestamp"].isoformat(),
            "rejected by": f"batch {message['batch']}",
            "reason": message["reason"],
            "detail": safe_text(message["detail"] or ""),
            "state": "in quarantine" if replayed is None else f"replayed by batch {replayed}",
        }
        value: bytes | None = message["value"]
        if value is None:
            lines["value"] = "none: Kafka held a message without one"
        else:
            lines["size"] = f"{len(value):,} bytes"
            lines["value"] = safe_text(value)
        for name, text in lines.items():
            out.print(f"{name:<12}{text}", markup=False, soft_wrap=True)
        for line in hex_lines(value or b""):
            out.print(f"  {line}", markup=False, soft_wrap=True)


@app.command()
def export(
    output: Annotated[
        Path, typer.Option(help="A new file: parquet if it ends in .parquet, JSON lines otherwise.")
    ],
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    first_batch: FirstBatch = None,
    last_batch: LastBatch = None,
    limit: Limit = None,
) -> None:
    """Write selected messages to a file, with coordinates and reason. They stay in quarantine."""
    from antenna_assets.operations.quarantine.export import export as write
    from antenna_assets.operations.quarantine.messages import select

    selection = _selection(reason, since, until, first_batch, last_batch, limit)
    with _ledger() as (settings, connection):
        messages = select(connection, settings.lake_uri, selection)
    write(messages, output)
    out.print(f"wrote {messages.num_rows:,} messages to {output}", markup=False, soft_wrap=True)


@app.command()
def replay(
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    first_batch: FirstBatch = None,
    last_batch: LastBatch = None,
    limit: Limit = None,
    every: Annotated[bool, typer.Option("--all", help="Replay all that is in quarantine.")] = False,
    transform: Annotated[
        Path | None,
        typer.Option(
            help="A Python file that defines `def transform(value: bytes) -> bytes | None`; None: leave it."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be accepted.")] = False,
) -> None:
    """Parse selected messages again, mended or not, and add what is accepted now to its hours, once.

    An event older than the horizon is accepted, back to the first hour. The stream may run meanwhile.
    """
    from antenna_assets.clients.clock import database_now
    from antenna_assets.operations.quarantine.message_transform import load_transform
    from antenna_assets.operations.quarantine.reparse import local_spark
    from antenna_assets.operations.quarantine.replay import execute, plan

    selection = _selection(reason, since, until, first_batch, last_batch, limit)
    if selection == type(selection)() and not every:
        raise typer.BadParameter("expected a selection such as --reason wrong_type, or --all")
    mend = load_transform(transform) if transform else None
    with _ledger() as (settings, connection):
        planned = plan(
            connection,
            settings,
            lambda: local_spark(settings.lake_uri),
            selection,
            clock=database_now(connection),
            transform=mend,
        )
        _print_plan(planned)
        if dry_run:
            out.print("a dry run: nothing was changed")
            return
        batch = execute(connection, settings, planned, transform=mend)
    out.print(f"batch {batch} replayed {planned.accepted.num_rows:,} messages")


def _print_plan(planned: "Plan") -> None:
    from antenna_assets.domain.hours import hour_key
    from antenna_assets.domain.listing import and_more
    from antenna_assets.domain.safe_text import safe_cell, safe_text
    from antenna_assets.operations.quarantine.replay import FAILED

    accepted = Table(
        "hour", Column("rows", justify="right"), Column("bytes", justify="right"), "state", title="Accepted"
    )
    for one in planned.hours:
        state = "closed, published again" if one.closed else "open"
        accepted.add_row(hour_key(one.hour), f"{one.rows:,}", f"{one.bytes:,}", state)
    out.print(accepted if planned.hours else "no message is accepted")
    if planned.skipped:
        left = Table("why", Column("messages", justify="right"), "for example", title="Stays in quarantine")
        for why, count in planned.skipped_by_reason.items():
            first = next(one for one in planned.skipped if one.reason == why)
            example = f"partition {first.partition}, offset {first.offset}: {safe_cell(first.detail)}"
            left.add_row(why, f"{count:,}", example.removesuffix(": "))
        out.print(left)
    failures = [one for one in planned.skipped if one.reason == FAILED]
    for failure in failures[:FAILURES_SHOWN]:
        line = f"the transformation failed at partition {failure.partition}, offset {failure.offset}: {safe_text(failure.detail)}"
        out.print(line, markup=False, soft_wrap=True)
    if rest := and_more(len(failures), FAILURES_SHOWN):
        out.print(f"... {rest}")
