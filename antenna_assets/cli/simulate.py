"""Simulated traffic and its answers: `simulate`, `check` and `demo`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from antenna_assets.cli.console import out, progress_bar, say, stop_on_signals


def _hour(text: str) -> datetime:
    try:
        hour = datetime.fromisoformat(text)
    except ValueError:
        hour = None
    if hour is None or hour.tzinfo is None or (hour.minute, hour.second, hour.microsecond) != (0, 0, 0):
        raise typer.BadParameter(
            f"expected a full hour with a zone such as 2026-11-20T10:00:00Z, found {text!r}"
        )
    return hour.astimezone(UTC)


def simulate(
    events: Annotated[int, typer.Option(min=0, help="Messages to send, of all kinds together.")],
    start: Annotated[str, typer.Option(help="First hour, as 2026-11-20T10:00:00Z.")],
    hours: Annotated[int, typer.Option(min=1, help="Hours to spread the events over.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same messages.")] = 0,
    rate: Annotated[
        float | None, typer.Option(min=1, help="Messages a second; as fast as possible if not given.")
    ] = None,
    late: Annotated[float, typer.Option(min=0, max=1, help="Share of events that arrive late.")] = 0.0,
    malformed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of messages that are no event.")
    ] = 0.0,
    future: Annotated[float, typer.Option(min=0, max=1, help="Share of events from the future.")] = 0.0,
    unknown_users: Annotated[
        float, typer.Option(min=0, max=1, help="Share of events of unknown users.")
    ] = 0.0,
    users: Annotated[int, typer.Option(min=1, help="Number of users.")] = 20,
    antennas: Annotated[int, typer.Option(min=1, help="Number of antennas.")] = 5,
    answers: Annotated[
        Path | None, typer.Option(help="Write the exact expected tables to this JSON file.")
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add to the answers that the file holds already.")
    ] = False,
) -> None:
    """Send simulated events to Kafka, every one of them acknowledged, and write the exact expected tables."""
    from antenna_assets.settings import load_settings
    from antenna_assets.simulator.run import simulate as run
    from antenna_assets.simulator.scenario import Scenario
    from antenna_assets.stack.services import kafka_bootstrap, kafka_config

    if append and answers is None:
        raise typer.BadParameter("--append needs --answers, the file to add to")
    settings = load_settings()
    scenario = Scenario(
        events=events,
        seed=seed,
        start=_hour(start),
        hours=hours,
        late=late,
        malformed=malformed,
        future=future,
        unknown_users=unknown_users,
        users=users,
        antennas=antennas,
    )
    with progress_bar("sending", events) as progress:
        sent = run(
            settings,
            scenario,
            bootstrap=kafka_bootstrap(settings),
            config=kafka_config(settings),
            answers=answers,
            append=append,
            rate=rate,
            progress=progress,
        )
    out.print(
        f"sent {sent.messages:,} messages, all acknowledged" + (f"; answers in {answers}" if answers else "")
    )


def check(
    answers: Annotated[Path, typer.Option(help="File that `antenna simulate --answers` wrote.")],
) -> None:
    """Compare every table with the answers. Exit code 1, and the differences, if they differ."""
    from antenna_assets.settings import load_settings
    from antenna_assets.simulator.run import check as run
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    report = run(settings, answers, postgres_url=postgres_url(settings))
    if report is not None:
        out.print(report)
        raise typer.Exit(1)
    out.print("[green]all tables equal the answers[/green]")


def demo(
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Stay up: live events, the stream, and Dagster's UI on 127.0.0.1:3000."),
    ] = False,
) -> None:
    """Run everything from nothing to a checked result: two hours of events through Kafka, Spark and Dagster."""
    from antenna_assets.cli.demo import run_demo, serve_demo
    from antenna_assets.settings import load_settings

    settings = load_settings()
    run_demo(settings, out=out, say=say)
    if serve:
        with stop_on_signals() as stop:
            serve_demo(settings, out=out, say=say, stop=stop)
