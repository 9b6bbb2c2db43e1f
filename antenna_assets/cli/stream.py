"""The stream and its repairs: `stream`, `accept-loss` and `reopen`."""

from typing import Annotated

import typer

from antenna_assets.cli.console import out, say, stop_on_signals
from antenna_assets.cli.database import database


def stream(
    available_now: Annotated[
        bool,
        typer.Option(
            "--available-now", help="Read what is in Kafka now, close the hours that can close, and exit."
        ),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Where to begin a topic that was never read: earliest, latest, a time such as "
            "2026-11-20T10:00:00Z, or an offset per partition such as 0:1500,1:980. Recorded in the ledger.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="What reads: `duckdb` in this process, or `spark` on a cluster. Without it, "
            "ANTENNA_STREAM_ENGINE says which.",
        ),
    ] = None,
) -> None:
    """Run the streaming job, from Kafka to landed files, ledger and live tables, until Ctrl-C or SIGTERM."""
    from antenna_assets.settings import load_settings, with_stream_engine
    from antenna_assets.stack.services import services
    from antenna_assets.streaming.job import Stream

    settings = load_settings()
    if engine is not None:
        settings = with_stream_engine(settings, engine)
    running = services(settings)
    with stop_on_signals() as stop:
        job = Stream(
            settings,
            postgres_url=running.postgres_url,
            kafka_bootstrap=running.kafka_bootstrap,
            kafka_config=running.kafka_config,
            say=say,
            stop=stop,
            start=start,
        )
        try:
            if available_now:
                job.read_available()
            else:
                job.run()
        finally:
            job.close()
    say("stopped" if stop.is_set() else "everything is read")


def accept_loss(
    yes: Annotated[
        bool, typer.Option("--yes", help="Record the loss. Without it, it is only shown.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Reason to record.")] = "accepted by hand",
    skip: Annotated[
        tuple[int, int],
        typer.Option(
            metavar="PARTITION OFFSET",
            help="Record one unreadable record as lost. It must be the next one that the stream would read.",
        ),
    ] = (-1, -1),
) -> None:
    """Show which messages Kafka lost before they were read; with --yes record it, so the stream resumes."""
    from antenna_assets.clients.kafka_broker import Broker
    from antenna_assets.ledger.loss import accept_losses, losses, skip_record
    from antenna_assets.stack.services import kafka_bootstrap, kafka_config

    with database("accept-loss") as (settings, connection):
        broker = Broker(kafka_bootstrap(settings), settings.topic, kafka_config(settings))
        if skip != (-1, -1):
            out.print(f"{skip_record(connection, broker, *skip, reason)}: recorded as lost", soft_wrap=True)
            return
        lost = accept_losses(connection, broker, reason) if yes else losses(connection, broker)
    for loss in lost:
        out.print(str(loss), soft_wrap=True)
    if not lost:
        out.print("nothing is lost: Kafka holds every message that was not read")
    elif yes:
        out.print("recorded; the stream can resume")
    else:
        out.print("not recorded: run it again with --yes to accept the loss")


def reopen(
    first: Annotated[str, typer.Option("--from", help="First hour to reopen, such as 2026-11-22-10:00.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    reason: Annotated[str, typer.Option(help="Reason to record.")] = "reopened by hand",
) -> None:
    """Reopen hours that a wrong clock of PostgreSQL closed. Set the clock and stop the stream first."""
    from antenna_assets.domain.hours import parse_hour
    from antenna_assets.ledger.reopen import plan_reopening
    from antenna_assets.ledger.reopen import reopen as run

    hour = parse_hour(first)
    with database("reopen") as (settings, connection):
        plan = plan_reopening(connection, settings.topic, hour, settings.horizon)
        if not plan:
            out.print(f"no hour from {first} on is closed")
            return
        out.print(str(plan), soft_wrap=True)
        if not yes:
            typer.confirm("Reopen them?", abort=True)
        done = run(connection, settings.topic, hour, horizon=settings.horizon, reason=reason)
    out.print(f"recorded: {done}; the stream can resume", soft_wrap=True)
