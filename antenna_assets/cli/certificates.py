"""Proofs: `certificate`, `verify` and `anchor`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from antenna_assets.cli.console import out, progress_bar
from antenna_assets.cli.database import database
from antenna_assets.domain.counted import counted

if TYPE_CHECKING:
    from rich.console import RenderableType


def certificate(
    of: Annotated[
        str,
        typer.Argument(
            metavar="HOUR",
            help="Hour in UTC, such as 2026-11-22-10:00; with --period a day, or the first day of a month.",
        ),
    ],
    period: Annotated[
        Literal["hour", "day", "month"],
        typer.Option(help="What the argument names. Days and months are those of the billing zone."),
    ] = "hour",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the exact text that the SHA-256 is computed from.")
    ] = False,
) -> None:
    """Print the newest certificate of an hour: Kafka offsets, rows and bytes landed and published, hashes.

    That of a day names those of its hours, and that of a month those of its days.
    """
    from antenna_assets.cli.certificate_tables import certificate_tables, period_certificate_tables
    from antenna_assets.domain.hours import parse_hour
    from antenna_assets.domain.periods import parse_period
    from antenna_assets.ledger.certificate import require_certificate
    from antenna_assets.ledger.chain import ChainedCertificate
    from antenna_assets.ledger.period_publications import require_period_certificate

    newest: ChainedCertificate
    tables: Iterator[RenderableType]
    with database("certificate") as (_, connection):
        if period == "hour":
            newest = hour = require_certificate(connection, parse_hour(of))
            tables = certificate_tables(hour)
        else:
            newest = day = require_period_certificate(connection, period, parse_period(period, of))
            tables = period_certificate_tables(day)
    if as_json:
        sys.stdout.write(newest.text + "\n")
        return
    for table in tables:
        out.print(table)


def verify(
    first: Annotated[
        str | None, typer.Option("--from", help="First hour, such as 2026-11-22-10:00. Default: the oldest.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Last hour, inclusive. Default: the newest.")
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(help="Hashes kept outside the database: a file that `antenna anchor` wrote, or a log."),
    ] = None,
) -> None:
    """Recompute what the certificates claim from the files and tables. Exit code 1 if anything differs."""
    from antenna_assets.cli.certificate_tables import differences_table, pending_table
    from antenna_assets.clients.clock import database_now
    from antenna_assets.domain.hours import HOUR, parse_hour
    from antenna_assets.ledger.anchors import read_anchors
    from antenna_assets.publishing.lake import Lake
    from antenna_assets.verify.run import verify as run

    begin = parse_hour(first) if first is not None else None
    end = parse_hour(last) + HOUR if last is not None else None
    anchored = read_anchors(anchors) if anchors is not None else []
    with database("verify") as (settings, connection), progress_bar("verifying") as advance:
        verified = run(
            connection,
            Lake(settings.lake_uri),
            first=begin,
            end=end,
            kept_since=database_now(connection) - settings.horizon,
            anchors=anchored,
            progress=advance,
        )
    if verified.pending:
        out.print(pending_table(verified.pending))
    if verified.not_recomputed:
        out.print(
            f"{counted(len(verified.not_recomputed), 'hour is', 'hours are')} past the horizon, with no"
            " landed files left: what is published was verified"
        )
    against = f", against {counted(len(anchored), 'anchor')}" if anchored else ""
    hours, certificates = counted(verified.hours, "hour"), counted(verified.certificates, "certificate")
    periods = f", {counted(verified.periods, 'day or month', 'days and months')}" if verified.periods else ""
    out.print(f"verified {hours}{periods} and {certificates}{against}")
    if verified.differences:
        out.print(differences_table(verified.differences))
        raise typer.Exit(1)
    out.print("[green]everything is as certified[/green]")


def anchor(
    file: Annotated[
        Path | None,
        typer.Argument(help="File to append to, best on another machine. Default: print the lines."),
    ] = None,
) -> None:
    """Keep the newest certificates' hashes outside the database, whose owner could rewrite whole chains."""
    from antenna_assets.ledger.anchors import anchor_of, append_anchor
    from antenna_assets.ledger.certificate import newest_of_chain
    from antenna_assets.ledger.chain import newest
    from antenna_assets.ledger.period_publications import PeriodCertificate

    with database("anchor") as (_, connection):
        of_hours, of_periods = newest_of_chain(connection), newest(connection, PeriodCertificate)
    for one in (of_hours, of_periods):
        if one is None:
            continue
        written = anchor_of(one) if file is None else append_anchor(file, one)
        if written is None:
            out.print(f"{one.NAME} {one.number} is anchored already")
        else:
            sys.stdout.write(written.line + "\n")
