"""Simulated traffic and the answers to it: `demo`, `simulate` and `check`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from antenna_assets.cli.console import out, progress_bar, say, stop_on_signals
from antenna_assets.domain.counted import counted


def demo(
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Keep running: live events, the stream, alerts, and Dagster on 127.0.0.1:3000."
        ),
    ] = False,
) -> None:
    """Run the whole pipeline once: two hours of events through Kafka, stream and Dagster, then checked."""
    from antenna_assets.cli.demo import run_demo
    from antenna_assets.cli.demo_services import serve_demo
    from antenna_assets.settings import load_settings

    settings = load_settings()
    run_demo(settings, out=out, say=say)
    if serve:
        with stop_on_signals() as stop:
            serve_demo(settings, out=out, say=say, stop=stop)


def _share(description: str) -> Any:
    return typer.Option(min=0, max=1, help=f"Share of {description}.")


def simulate(
    events: Annotated[int, typer.Option(min=0, help="How many messages to send, good and bad ones.")],
    start: Annotated[str, typer.Option(help="First hour, such as 2026-11-20T10:00:00Z.")],
    hours: Annotated[int, typer.Option(min=1, help="How many hours the events spread over.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same messages.")] = 0,
    rate: Annotated[
        float | None, typer.Option(min=1, help="Messages per second. Default: as fast as possible.")
    ] = None,
    late: Annotated[float, _share("events that arrive late")] = 0.0,
    malformed: Annotated[float, _share("messages that are not valid events")] = 0.0,
    future: Annotated[float, _share("events with a timestamp in the future")] = 0.0,
    unknown_users: Annotated[float, _share("events of users that are not in user_metadata")] = 0.0,
    users: Annotated[int, typer.Option(min=1, help="How many users.")] = 20,
    antennas: Annotated[int, typer.Option(min=1, help="How many antennas.")] = 5,
    answers: Annotated[
        Path | None, typer.Option(help="JSON file to write the exact expected tables to.")
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add to the answers that are in the file already.")
    ] = False,
) -> None:
    """Send simulated events to Kafka, each acknowledged, and write the exact tables that must result."""
    from antenna_assets.settings import load_settings
    from antenna_assets.simulator.run import AnswersFile
    from antenna_assets.simulator.run import simulate as run
    from antenna_assets.simulator.scenario import Scenario
    from antenna_assets.simulator.send import Target
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
    target = Target(kafka_bootstrap(settings), settings.topic, kafka_config(settings))
    file = AnswersFile(answers, append=append) if answers else None
    with progress_bar("sending", events) as advance:
        sent = run(settings, scenario, target, answers=file, rate=rate, progress=advance)
    written = f"; answers in {answers}" if answers else ""
    out.print(f"sent {counted(sent.messages, 'message')}, all acknowledged{written}")


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


def check(
    answers: Annotated[Path, typer.Option(help="File that `antenna simulate --answers` wrote.")],
) -> None:
    """Compare every table with the answers. Exit code 1, and the differences, if any differs."""
    from antenna_assets.settings import load_settings
    from antenna_assets.simulator.run import check as run
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    report = run(settings, answers, postgres_url=postgres_url(settings))
    if report is not None:
        out.print(report)
        raise typer.Exit(1)
    out.print("[green]all tables equal the answers[/green]")
