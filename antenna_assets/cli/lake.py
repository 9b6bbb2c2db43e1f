"""The lake: `sweep`, `adopt-lake` and `rebuild-table`."""

from typing import Annotated

import typer

from antenna_assets.cli.console import out, say, stop_on_signals
from antenna_assets.cli.database import database
from antenna_assets.errors import AntennaError


def sweep(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; show what would be removed.")
    ] = False,
    every: Annotated[
        str | None,
        typer.Option(
            help="Sweep now and at this interval, such as '1 day', until stopped. Errors are only printed."
        ),
    ] = None,
) -> None:
    """Remove orphaned files and what is past its retention. Safe while everything runs, and to interrupt."""
    from antenna_assets.operations.sweep.run import report
    from antenna_assets.operations.sweep.run import sweep as run
    from antenna_assets.settings import duration, load_settings
    from antenna_assets.stack.services import postgres_url
    from antenna_assets.stack.start import dagster_home

    settings = load_settings()

    def once() -> None:
        amounts = run(
            postgres_url(settings),
            settings.lake_uri,
            dagster_home=dagster_home(settings),
            horizon=settings.horizon,
            keep_user_hours=settings.keep_user_hours,
            keep_notices=settings.keep_notices,
            dry_run=dry_run,
        )
        out.print(report(amounts, dry_run=dry_run))

    if every is None:
        once()
        return
    try:
        pause = duration(every).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if not pause:
        raise typer.BadParameter("expected a time such as '1 day', found none")
    with stop_on_signals() as stop:
        while not stop.is_set():
            try:
                once()
            except AntennaError as error:
                say(f"sweep failed, next attempt in {every}: {error}")
            stop.wait(pause)


def adopt_lake(
    yes: Annotated[
        bool, typer.Option("--yes", help="Bind them. Without it, what is found is only shown.")
    ] = False,
) -> None:
    """Bind the lake at ANTENNA_LAKE to this database after a move or a loss.

    Older copies of either are refused from then on.
    """
    from antenna_assets.ledger.lake_identity import adopt, claimed_lake, evidence, id_of_lake
    from antenna_assets.ledger.stream_lock import only_stream

    # With the stream's lock nothing lands in the meantime.
    with database("adopt-lake") as (settings, connection), only_stream(connection):
        known, seen = claimed_lake(connection), evidence(connection, settings.lake_uri)
        claimed = f"{known.id}, claimed at {known.place}" if known else "none yet"
        out.print(f"the ledger's lake: {claimed}", soft_wrap=True)
        try:
            found = id_of_lake(settings.lake_uri) or "no id"
        except AntennaError as error:
            found = str(error)
        out.print(
            f"{settings.lake_uri}: {found}; {seen.found} of {seen.named} files of the ledger are there",
            soft_wrap=True,
        )
        if not yes:
            out.print("not bound: run it again with --yes to bind them")
            return
        adopt(connection, settings.lake_uri)
    out.print("[green]bound[/green]: `antenna verify` lists what the lake lacks")


def rebuild_table(
    table: Annotated[str, typer.Argument(help="raw_parquet or enriched_usage.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show what is corrupt or missing.")
    ] = False,
) -> None:
    """Rebuild a lake table whose log was corrupted or lost. Exit code 1 if an hour stays missing."""
    from antenna_assets.domain.schema import HOURLY_TABLES, LAKE_TABLES, PERIOD_TABLES
    from antenna_assets.operations.rebuild import lines, rebuild
    from antenna_assets.publishing.lake import Lake

    if table in HOURLY_TABLES:
        raise typer.BadParameter(
            f"{table} is a table of PostgreSQL, not of the lake: its hours are published again by"
            " `antenna backfill`"
        )
    if table in PERIOD_TABLES:
        job = {"day": "daily_usage", "month": "monthly_usage"}[PERIOD_TABLES[table].period]
        raise typer.BadParameter(
            f"{table} is a table of PostgreSQL, not of the lake: it is published again by `dagster job"
            f" execute -m antenna_assets.definitions -j {job}`, see docs/periods.md"
        )
    if table not in LAKE_TABLES:
        raise typer.BadParameter(f"expected {' or '.join(LAKE_TABLES)}, found {table!r}")
    with database("rebuild-table") as (settings, connection):
        done = rebuild(connection, Lake(settings.lake_uri), table, dry_run=dry_run)
    for line in lines(table, done, dry_run=dry_run):
        out.print(line, soft_wrap=True)
    if done.to_run or done.lost:
        raise typer.Exit(1)
