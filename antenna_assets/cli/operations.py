"""Results and personal data: `status`, `usage`, `metrics`, `report` and `forget-user`."""

import json
from collections.abc import Sized
from pathlib import Path
from typing import Annotated

import typer

from antenna_assets.cli.console import out, say, stop_on_signals
from antenna_assets.cli.database import database
from antenna_assets.cli.options import FirstHour, LastHour
from antenna_assets.domain.counted import counted


def status() -> None:
    """Show the stream's state and lag, open, closed and dirty hours, and rejected messages by reason."""
    from antenna_assets.clients.kafka_broker import Broker
    from antenna_assets.operations.status import tables
    from antenna_assets.stack.services import ServicesError, kafka_bootstrap, kafka_config

    broker, no_broker = None, ""
    with database("status") as (settings, connection):
        try:
            broker = Broker(kafka_bootstrap(settings), settings.topic, kafka_config(settings))
        except ServicesError as error:
            no_broker = str(error)
        for table in tables(connection, settings.topic, broker, no_broker):
            out.print(table)


def usage(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    first: FirstHour,
    last: LastHour = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each hour.")] = False,
) -> None:
    """Show a user's bytes hour by hour, from the lake where PostgreSQL no longer keeps them."""
    from antenna_assets.domain.fitting_table import FittingTable, number_columns
    from antenna_assets.domain.hours import hour_key, range_of_hours
    from antenna_assets.ledger.lake_identity import require_matching_lake
    from antenna_assets.operations.usage import hours_not_known, usage_of
    from antenna_assets.publishing.lake import Lake

    hours = range_of_hours(first, last or first)
    with database("usage") as (settings, connection):
        lake = Lake(settings.lake_uri)
        require_matching_lake(connection, lake.root)
        found = usage_of(connection, lake, user, hours)
        not_known = hours_not_known(connection, hours)
    if not_known:
        many = counted(not_known, "hour")
        say(f"of {many} not all is known: not published, and users had no live sums (ANTENNA_LIVE)")
    if as_json:
        for one in found:
            line = {"hour": hour_key(one.hour), "bytes": one.bytes, "source": one.source}
            typer.echo(json.dumps(line))
        return
    table = FittingTable("hour", *number_columns("bytes"), "source")
    for one in found:
        table.add_row(hour_key(one.hour), f"{one.bytes:,}", one.source)
    table.caption = f"{sum(one.bytes for one in found):,} bytes in {counted(len(found), 'hour')}"
    out.print(table)


def forget_user(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show where the id occurs.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask for confirmation. It cannot be undone.")
    ] = False,
    drop_unjudged: Annotated[
        bool,
        typer.Option(
            "--drop-unjudged",
            help="Drop the content of rejected messages that may name the user; they stay counted.",
        ),
    ] = False,
) -> None:
    """Replace a user by a random pseudonym in every table and file. Sums stay the same."""
    from antenna_assets.operations.forget.identity import is_unfinished
    from antenna_assets.operations.forget.places import places, places_table, unjudged_table
    from antenna_assets.operations.forget.run import forget
    from antenna_assets.publishing.lake import Lake

    with database("forget-user") as (settings, connection):
        lake = Lake(settings.lake_uri)
        found = places(connection, lake, user)
        unjudged, done = found.unjudged, "the id is nowhere"
        if found:
            out.print(places_table(found))
        if unjudged:
            out.print(unjudged_table(unjudged))
        if dry_run:
            if not found:
                out.print(_with_unjudged(done, unjudged), soft_wrap=True)
            return
        if found or is_unfinished(connection, user) or (drop_unjudged and unjudged):
            if not yes:
                typer.confirm("Forget this user? It cannot be undone.", abort=True)
            forgotten = forget(
                connection,
                lake,
                user,
                say=say,
                drop_unjudged=drop_unjudged,
                spill_folder=settings.home / "spill" / "forget",
            )
            unjudged = forgotten.unjudged
            dropped = f"; {forgotten.dropped:,} rejected messages were dropped" if forgotten.dropped else ""
            done = (
                f"[green]forgotten[/green]: replaced by {forgotten.pseudonym}{dropped};"
                " the id is nowhere any more"
            )
    out.print(_with_unjudged(done, unjudged), soft_wrap=True)
    if unjudged:
        raise typer.Exit(1)


def _with_unjudged(done: str, unjudged: Sized) -> str:
    """The result, restricted if there are rejected messages that cannot be judged."""
    if not unjudged:
        return done
    return (
        f"{done}, as far as can be judged: {len(unjudged):,} rejected messages may still name the user;"
        " --drop-unjudged drops them, and `antenna quarantine show` shows one"
    )


def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port to listen on.")] = 9464,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. The metrics name no user, but need no login."),
    ] = "127.0.0.1",
) -> None:
    """Serve lag, hours, rejected messages and more for Prometheus, until stopped."""
    from antenna_assets.clients.kafka_broker import Broker
    from antenna_assets.operations.metrics import serve
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import kafka_bootstrap, kafka_config, postgres_url

    settings = load_settings()
    with stop_on_signals() as stop:
        shut_down = serve(
            postgres_url(settings),
            lambda: Broker(kafka_bootstrap(settings), settings.topic, kafka_config(settings)),
            host=host,
            port=port,
            say=say,
        )
        say(f"metrics on http://{host}:{port}/metrics")
        stop.wait()
        shut_down()


def report(
    hour: Annotated[str | None, typer.Option(help="An hour, such as 2026-11-22-10:00.")] = None,
    day: Annotated[
        str | None,
        typer.Option(help="A day in UTC, such as 2026-11-22. Default: that of the newest published hour."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write. Default: antenna-<hour or day>.html.")
    ] = None,
) -> None:
    """Write a self-contained HTML page on an hour or a day: usage, quotas, and how far to trust them."""
    from antenna_assets.operations.report.write import write_report

    with database("report") as (_, connection):
        path = write_report(connection, hour=hour, day=day, output=output)
    out.print(f"wrote {path}", soft_wrap=True)
