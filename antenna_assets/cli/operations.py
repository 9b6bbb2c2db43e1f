"""Looking at the system and changing its past: `status`, `metrics`, `report` and `forget-user`."""

from collections.abc import Sized
from pathlib import Path
from typing import Annotated

import typer

from antenna_assets.cli.console import out, say, stop_on_signals


def status() -> None:
    """Show lag, whether the stream runs or what it waits for, open and closed hours, dirty hours, generations, and quarantine by reason."""
    from antenna_assets.clients.kafka_broker import Broker
    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.operations.status import tables
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import ServicesError, kafka_bootstrap, kafka_config, postgres_url

    settings = load_settings()
    broker, no_broker = None, ""
    with connect(postgres_url(settings)) as connection:
        require_migrated(connection)
        try:
            broker = Broker(kafka_bootstrap(settings), settings.topic, kafka_config(settings))
        except ServicesError as error:
            no_broker = str(error)
        for table in tables(connection, settings.topic, broker, no_broker):
            out.print(table)


def forget_user(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; show where the id is.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask: nothing leads back from the pseudonym.")
    ] = False,
    drop_unjudged: Annotated[
        bool,
        typer.Option(
            "--drop-unjudged",
            help="Drop the rejected messages of which nobody can say whether they name the user; their rows and reasons stay.",
        ),
    ] = False,
) -> None:
    """Put a random pseudonym in the place of a user, in every table and file; sums stay. See docs/forgetting.md."""
    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.operations.forget.identity import is_unfinished
    from antenna_assets.operations.forget.run import forget, places, places_table, unjudged_table
    from antenna_assets.publishing.lake import Lake
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    lake = Lake(settings.lake_uri)
    with connect(postgres_url(settings), application="antenna forget-user") as connection:
        require_migrated(connection)
        found = places(connection, lake, user)
        unjudged, done = found.unjudged, "the id is nowhere"
        if found:
            out.print(places_table(found))
        if unjudged:
            out.print(unjudged_table(unjudged))
        if dry_run:
            if not found:
                out.print(_sentence(done, unjudged), soft_wrap=True)
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
            done = f"[green]forgotten[/green]: {forgotten.pseudonym} is in its place{dropped}, and the id is nowhere any more"
    out.print(_sentence(done, unjudged), soft_wrap=True)
    if unjudged:
        raise typer.Exit(1)


def _sentence(done: str, unjudged: Sized) -> str:
    """What can be said of an id: nothing, of messages that cannot be judged."""
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
        typer.Option(
            help="Address to listen on. What is told names no user, but anyone who can reach it may ask."
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve lag, hours, rejected messages and more for Prometheus, until stopped."""
    from antenna_assets.clients.kafka_broker import Broker
    from antenna_assets.operations.metrics import serve
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import kafka_bootstrap, kafka_config, postgres_url

    settings = load_settings()
    with stop_on_signals() as stop:
        end = serve(
            postgres_url(settings),
            lambda: Broker(kafka_bootstrap(settings), settings.topic, kafka_config(settings)),
            host=host,
            port=port,
        )
        say(f"metrics on http://{host}:{port}/metrics")
        stop.wait()
        end()


def report(
    hour: Annotated[str | None, typer.Option(help="An hour, as 2026-11-22-10:00.")] = None,
    day: Annotated[
        str | None,
        typer.Option(help="A day in UTC, as 2026-11-22. Default: that of the newest published hour."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The page to write. Default: antenna-<hour or day>.html.")
    ] = None,
) -> None:
    """Write one page on an hour or a day: usage, quotas and how far to trust it. It needs nothing beside it."""
    from antenna_assets.clients.postgres import connect
    from antenna_assets.operations.report.write import write_report
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    with connect(postgres_url(load_settings()), application="antenna report") as connection:
        path = write_report(connection, hour=hour, day=day, output=output)
    out.print(f"written: {path}", soft_wrap=True)
