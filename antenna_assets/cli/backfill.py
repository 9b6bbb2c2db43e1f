"""`antenna backfill`: publish hours again through Dagster, or show what that would change.

The changes are computed in `operations/backfill.py`; Dagster's backfill is launched by
`defs/backfill_launch.py`.
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from antenna_assets.cli.console import out, progress_bar
from antenna_assets.cli.database import database
from antenna_assets.cli.options import FirstHour, LastHour
from antenna_assets.domain.counted import counted

if TYPE_CHECKING:
    import psycopg

    from antenna_assets.settings import Settings


def backfill(
    first: FirstHour,
    last: LastHour = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Change nothing; show which rows and over-quota users would change."),
    ] = False,
    quota_of: Annotated[
        str,
        typer.Option(
            help="`now` judges the hours by the quotas of now, and writes that into the history;"
            " `then` by those of their ends."
        ),
    ] = "then",
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until it has finished. Exit code 1 if an hour is not published."),
    ] = False,
) -> None:
    """Publish closed hours again through Dagster, with everything that has landed and the current users.

    Each hour is judged by the quota that was in force at its end, unless --quota-of is `now`.
    """
    from antenna_assets.domain.hours import range_of_hours
    from antenna_assets.ledger.closed_hours import require_closed
    from antenna_assets.stack.start import environment_of

    if quota_of not in ("then", "now"):
        raise typer.BadParameter(f"--quota-of: expected then or now, found {quota_of!r}")
    hours = range_of_hours(first, last or first)
    with database("backfill") as (settings, connection):
        require_closed(connection, hours)
        if dry_run:
            _show_changes(connection, settings, hours, of_now=quota_of == "now")
            return
        from antenna_assets.definitions import build_definitions
        from antenna_assets.defs.backfill_launch import daemon_runs, follow, launch
        from antenna_assets.defs.instance import open_instance

        with environment_of(settings), open_instance() as instance:
            definitions = build_definitions()
            if quota_of == "now":
                # Right before the launch: without Dagster the history stays as it is, and few ticks of the
                # sensor come in between and ask for the same hours.
                _judge_by_quotas_of_now(connection, hours)
            id_ = launch(definitions, instance, hours)
            out.print(f"requested backfill {id_} of {counted(len(hours), 'hour')} from Dagster")
            if not daemon_runs(instance):
                out.print(
                    "It waits for Dagster's daemon, which is not running:"
                    " start `dagster-daemon run` or `antenna demo --serve`"
                )
            if wait:
                with progress_bar("publishing", len(hours)) as advance:
                    follow(instance, connection, id_, hours, advance)
                out.print(f"[green]{counted(len(hours), 'hour is', 'hours are')} published[/green]")


def _judge_by_quotas_of_now(connection: "psycopg.Connection", hours: Sequence[datetime]) -> None:
    from antenna_assets.cli.quota_tables import changed_lines
    from antenna_assets.operations.quotas.rejudge import judge_by_quotas_of_now

    changed = judge_by_quotas_of_now(connection, hours)
    for line in changed_lines(changed):
        out.print(line, soft_wrap=isinstance(line, str))
    out.print(f"the quotas of now hold in these hours for {counted(changed.changes, 'user')} who had others")


def _show_changes(
    connection: "psycopg.Connection", settings: "Settings", hours: Sequence[datetime], *, of_now: bool
) -> None:
    from antenna_assets.cli.backfill_tables import hour_tables, summary
    from antenna_assets.clients.clock import database_now
    from antenna_assets.defs.resources import default_engine
    from antenna_assets.ledger.lake_identity import require_matching_lake
    from antenna_assets.operations.backfill import changes, current_users
    from antenna_assets.publishing.lake import Lake

    lake, found = Lake(settings.lake_uri), []
    judged_at = database_now(connection) if of_now else None
    require_matching_lake(connection, lake.root)
    with (
        closing(default_engine(settings).start()) as engine,
        current_users(connection, lake, hours, judged_at=judged_at) as users,
        progress_bar("comparing", len(hours)) as advance,
    ):
        for hour in hours:
            found.append(changes(connection, lake, engine, users, hour))
            advance(len(found))
    for changed in found:
        for table in hour_tables(changed):
            out.print(table)
    out.print(summary(found))
    out.print("nothing was changed; without --dry-run these hours are published again")
