"""`antenna backfill`: arguments in, what would change or how far it is out.

What changes is found in `operations/backfill.py`; Dagster is asked in `defs/backfill_launch.py`.
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from antenna_assets.cli.console import out, progress_bar

if TYPE_CHECKING:
    import psycopg

    from antenna_assets.settings import Settings


def backfill(
    first: Annotated[str, typer.Option("--from", help="First hour, as 2026-11-22-10:00.")],
    last: Annotated[
        str | None, typer.Option("--to", help="Last hour, this one included; one hour if not given.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Change nothing; show which rows and over-quota users would change."),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it to its end. Exit code 1 if an hour is not published.")
    ] = False,
) -> None:
    """Publish closed hours again, with Dagster: all that landed for them, and the users as they are now."""
    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.domain.hours import range_of_hours
    from antenna_assets.ledger.closed_hours import require_closed
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url
    from antenna_assets.stack.start import environment_of

    hours = range_of_hours(first, last or first)
    settings = load_settings()
    with connect(postgres_url(settings), application="antenna backfill") as connection:
        require_migrated(connection)
        require_closed(connection, hours)
        if dry_run:
            _show_changes(connection, settings, hours)
            return
        from antenna_assets.definitions import build_definitions
        from antenna_assets.defs.backfill_launch import daemon_runs, follow, launch
        from antenna_assets.defs.instance import open_instance

        with environment_of(settings), open_instance() as instance:
            id_ = launch(build_definitions(), instance, hours)
            out.print(f"asked Dagster for backfill {id_} of {len(hours):,} hours")
            if not daemon_runs(instance):
                out.print(
                    "Dagster's daemon carries it out, and none runs: start `dagster-daemon run` or `antenna demo --serve`"
                )
            if wait:
                with progress_bar("publishing", len(hours)) as bar:
                    follow(instance, connection, id_, hours, bar)
                out.print(f"[green]all {len(hours):,} hours are published[/green]")


def _show_changes(
    connection: "psycopg.Connection",
    settings: "Settings",
    hours: Sequence[datetime],
) -> None:
    from antenna_assets.cli.backfill_tables import hour_tables, summary
    from antenna_assets.defs.resources import default_engine
    from antenna_assets.ledger.lake_identity import require_not_anothers
    from antenna_assets.operations.backfill import changes, users_of_now
    from antenna_assets.publishing.lake import Lake

    lake, found = Lake(settings.lake_uri), []
    require_not_anothers(connection, lake.root)
    with (
        closing(default_engine(settings).start()) as engine,
        users_of_now(connection, lake) as users,
        progress_bar("comparing", len(hours)) as bar,
    ):
        for hour in hours:
            found.append(changes(connection, lake, engine, users, hour))
            bar(len(found))
    for one in found:
        for part in hour_tables(one):
            out.print(part)
    out.print(summary(found))
    out.print("nothing was changed; without --dry-run these hours are published again")
