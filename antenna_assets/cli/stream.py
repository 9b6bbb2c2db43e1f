"""The stream and its repairs: `stream`, `accept-loss` and `reopen`."""

from typing import Annotated

import typer

from antenna_assets.cli.console import out, say, stop_on_signals


def stream(
    available_now: Annotated[
        bool,
        typer.Option(
            "--available-now", help="Read to Kafka's present end, close what can be closed, and end."
        ),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Where to begin a topic that was not read yet: earliest, latest, a time such as "
            "2026-11-20T10:00:00Z, or each partition as 0:1500,1:980. Recorded.",
        ),
    ] = None,
) -> None:
    """Run the streaming job: from Kafka to landed files, ledger and live tables. Stops on Ctrl-C and SIGTERM."""
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import services
    from antenna_assets.streaming.job import Stream

    settings = load_settings()
    found = services(settings)
    with stop_on_signals() as stop:
        job = Stream(
            settings,
            postgres_url=found.postgres_url,
            kafka_bootstrap=found.kafka_bootstrap,
            kafka_config=found.kafka_config,
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
        bool, typer.Option("--yes", help="Record the loss; without it, it is only shown.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "accepted by hand",
    skip: Annotated[
        tuple[int, int],
        typer.Option(
            metavar="PARTITION OFFSET",
            help="Record as lost the one record that the stream cannot read; it must be the next one to read.",
        ),
    ] = (-1, -1),
) -> None:
    """Show what Kafka itself lost before it was read, and with --yes record it, so that the stream can go on."""
    from antenna_assets.clients.kafka_broker import Broker
    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.ledger.loss import accept, losses, step_over
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import services

    settings = load_settings()
    found = services(settings)
    broker = Broker(found.kafka_bootstrap, settings.topic, found.kafka_config)
    with connect(found.postgres_url, application="antenna accept-loss") as connection:
        require_migrated(connection)
        if skip != (-1, -1):
            out.print(f"{step_over(connection, broker, *skip, reason)}: recorded as lost", soft_wrap=True)
            return
        lost = accept(connection, broker, reason) if yes else losses(connection, broker)
    for loss in lost:
        out.print(str(loss), soft_wrap=True)
    if not lost:
        out.print("nothing is lost: Kafka holds every message that was not read")
    else:
        out.print(
            "recorded; the stream can go on"
            if yes
            else "not recorded: run it again with --yes to accept this"
        )


def reopen(
    first: Annotated[str, typer.Option("--from", help="First hour to open again, as 2026-11-22-10:00.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "reopened by hand",
) -> None:
    """Open the hours again that a wrong clock of PostgreSQL closed. Set the clock right first; no stream may run."""
    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.domain.hours import parse_hour
    from antenna_assets.ledger.reopen import planned
    from antenna_assets.ledger.reopen import reopen as run
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    hour = parse_hour(first)
    with connect(postgres_url(settings), application="antenna reopen") as connection:
        require_migrated(connection)
        found = planned(connection, settings.topic, hour, settings.horizon)
        if not found:
            out.print(f"no hour from {first} on is closed")
            return
        out.print(str(found), soft_wrap=True)
        if not yes:
            typer.confirm("Open them again?", abort=True)
        done = run(connection, settings.topic, hour, horizon=settings.horizon, reason=reason)
    out.print(f"recorded: {done}; the stream can go on", soft_wrap=True)
