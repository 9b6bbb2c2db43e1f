"""`antenna backfill`: arguments in, what would change or how far it is out.

What changes is found in `operations/backfill.py`; Dagster is asked in `defs/backfill_launch.py`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    import psycopg

    from antenna_assets.settings import Settings

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def backfill(
    out: Console, progress: Progress, *, first: str, last: str | None, dry_run: bool, wait: bool
) -> None:
    """Publish hours again, or show what that would change.

    Raises:
        NotAnHour: a key is no hour, or the range is reversed.
        HourNotClosed: an hour is open or unknown; nothing is done then.
        BackfillFailed: with `wait`, it did not come to its end.
    """
    from antenna_assets.clients.postgres import connect, require_migrated
    from antenna_assets.domain.hours import range_of_hours
    from antenna_assets.ledger.publications import require_closed
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url
    from antenna_assets.stack.start import environment_of

    hours = range_of_hours(first, last or first)
    settings = load_settings()
    with connect(postgres_url(settings), application="antenna backfill") as connection:
        require_migrated(connection)
        require_closed(connection, hours)
        if dry_run:
            _show_changes(connection, settings, hours, out, progress)
            return
        import dagster as dg

        from antenna_assets.defs.backfill_launch import daemon_runs, follow, launch

        with environment_of(settings), dg.DagsterInstance.get() as instance:
            id_ = launch(instance, hours)
            out.print(f"asked Dagster for backfill {id_} of {len(hours):,} hours")
            if not daemon_runs(instance):
                out.print(
                    "Dagster's daemon carries it out, and none runs: start `dagster-daemon run` or `antenna demo --serve`"
                )
            if wait:
                with progress("publishing", len(hours)) as bar:
                    follow(instance, connection, id_, hours, bar)
                out.print(f"[green]all {len(hours):,} hours are published[/green]")


def _show_changes(
    connection: "psycopg.Connection",
    settings: "Settings",
    hours: Sequence[datetime],
    out: Console,
    progress: Progress,
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
        progress("comparing", len(hours)) as bar,
    ):
        for hour in hours:
            found.append(changes(connection, lake, engine, users, hour))
            bar(len(found))
    for one in found:
        for part in hour_tables(one):
            out.print(part)
    out.print(summary(found))
    out.print("nothing was changed; without --dry-run these hours are published again")
