"""Proofs: `certificate`, `anchor` and `verify`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress

from antenna_assets.cli.console import err, out


def certificate(
    hour: Annotated[str, typer.Argument(help="Hour in UTC, as 2026-11-22-10:00.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the very text that the SHA-256 is of.")
    ] = False,
) -> None:
    """Print the newest certificate of an hour: offsets, rows and bytes landed, what is published, and the hashes."""
    from antenna_assets.cli.certificate_tables import lines
    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.domain.hours import parse_hour
    from antenna_assets.ledger.certificate import require_certificate
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    wanted = parse_hour(hour)
    with connect(postgres_url(load_settings())) as connection:
        require_migrated(connection)
        found = require_certificate(connection, wanted)
    if as_json:
        sys.stdout.write(found.text + "\n")
        return
    for line in lines(found):
        out.print(line)


def anchor(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="File to append the line to, best on another machine; without it, it is printed."
        ),
    ] = None,
) -> None:
    """Write down the newest certificate's hash outside the database, whose owner could write the whole chain anew."""
    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.ledger.anchors import anchor_of, append_anchor
    from antenna_assets.ledger.certificate import newest_of_all
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    with connect(postgres_url(load_settings()), application="antenna anchor") as connection:
        require_migrated(connection)
        newest = newest_of_all(connection)
    written = anchor_of(newest) if file is None else append_anchor(file, newest)
    if written is None:
        out.print(f"certificate {newest.number} is anchored already")
    else:
        sys.stdout.write(written.line + "\n")


def verify(
    first: Annotated[
        str | None, typer.Option("--from", help="First hour, as 2026-11-22-10:00; the oldest if not given.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Last hour, this one included; the newest if not given.")
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            help="Hashes kept outside the database: a file of `antenna anchor`, or a log with them."
        ),
    ] = None,
) -> None:
    """Recompute what the certificates claim from the files and tables. Exit code 1, and the differences, if there are any."""
    from antenna_assets.cli.certificate_tables import differences_table, pending_table
    from antenna_assets.clients.clock import database_now
    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.domain.hours import HOUR, parse_hour
    from antenna_assets.ledger.anchors import read_anchors
    from antenna_assets.publishing.lake import Lake
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url
    from antenna_assets.verify.run import verify as run

    settings = load_settings()
    begin = parse_hour(first) if first is not None else None
    end = parse_hour(last) + HOUR if last is not None else None
    anchored = read_anchors(anchors) if anchors is not None else []
    with (
        connect(postgres_url(settings)) as connection,
        Progress(
            *Progress.get_default_columns(),
            MofNCompleteColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        ) as bar,
    ):
        require_migrated(connection)
        kept_since = database_now(connection) - settings.horizon
        task = bar.add_task("verifying", total=None)
        found = run(
            connection,
            Lake(settings.lake_uri),
            first=begin,
            end=end,
            kept_since=kept_since,
            anchors=anchored,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if found.pending:
        out.print(pending_table(found.pending))
    if found.not_recomputed:
        out.print(
            f"{len(found.not_recomputed):,} hours are past the horizon and have no landed files any more: their "
            "published rows were verified"
        )
    held = f", held against {len(anchored):,} anchors" if anchored else ""
    out.print(f"verified {found.hours:,} hours and {found.certificates:,} certificates{held}")
    if found.differences:
        out.print(differences_table(found.differences))
        raise typer.Exit(1)
    out.print("[green]everything is as certified[/green]")
