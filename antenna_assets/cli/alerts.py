"""The commands below `antenna alerts`: here those about delivery, in `alert_rules.py` what is an alert."""

import dataclasses
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from antenna_assets.cli import alert_rules
from antenna_assets.cli.console import out, say, stop_on_signals
from antenna_assets.cli.database import database
from antenna_assets.domain.counted import counted

if TYPE_CHECKING:
    from antenna_assets.operations.alerts.outcome import State
    from antenna_assets.operations.alerts.review import Delivery

app = typer.Typer(
    name="alerts",
    help="Alerts on quotas: raise them, send them to webhooks, mail and a log, and see what became of them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

for command in (alert_rules.watch, alert_rules.rules, alert_rules.rule):
    app.command()(command)
app.command("test")(alert_rules.try_rule)

STATES: tuple["State", ...] = ("waiting", "delivered", "dead")


@app.command()
def deliver(
    once: Annotated[
        bool,
        typer.Option("--once", help="Attempt what is due now and exit, with code 1 if an attempt failed."),
    ] = False,
) -> None:
    """Send notices to the channels of ANTENNA_ALERT_CHANNELS, until Ctrl-C or SIGTERM.

    Several may run at once. Each notice is sent at least once, always with the same id.
    """
    from antenna_assets.operations.alerts.channels import read_channels
    from antenna_assets.operations.alerts.deliver import Deliverer
    from antenna_assets.operations.alerts.senders import senders
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    channels = read_channels(settings)
    ways = senders(channels)
    with stop_on_signals() as stop:
        deliverer = Deliverer(postgres_url(settings), channels, ways, say=say, stop=stop)
        if not once:
            deliverer.run()
            say("stopped")
            return
        failures = deliverer.once()
    if failures:
        say(f"{counted(failures, 'attempt')} failed; `antenna alerts list` shows which")
        raise typer.Exit(1)


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help=f"Only those that are {', '.join(STATES)}.")] = None,
    channel: Annotated[str | None, typer.Option(help="Only those of this channel.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest ones.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
) -> None:
    """List notices with what became of them in each channel, newest first."""
    from antenna_assets.cli.alerts_tables import deliveries_table
    from antenna_assets.operations.alerts.review import listed

    known = next((one for one in STATES if one == state), None)
    if state is not None and known is None:
        raise typer.BadParameter(f"--state: expected {', '.join(STATES)}, found {state!r}")
    with database("alerts") as (_, connection):
        found = listed(connection, state=known, channel=channel, limit=limit)
    if as_json:
        for one in found:
            typer.echo(as_line(one))
    elif found:
        out.print(deliveries_table(found))
    else:
        out.print("nothing was sent or is to be sent" if state is None and channel is None else "none")


def as_line(delivery: "Delivery") -> str:
    """A delivery as a line of JSON."""
    fields = dataclasses.asdict(delivery)
    return json.dumps(
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields.items()}
    )


@app.command()
def retry(
    id: Annotated[str | None, typer.Argument(help="The notice's id.")] = None,
    channel: Annotated[
        str | None, typer.Option(help="All of this channel, those that wait for their next attempt as well.")
    ] = None,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="All that were given up.")] = False,
) -> None:
    """Send again what was given up, or does not have to wait any longer. What was delivered stays so."""
    from antenna_assets.operations.alerts.review import retry as run

    if (id is not None) + (channel is not None) + all_dead != 1:
        raise typer.BadParameter("expected an id, --channel or --all-dead, and one of them alone")
    with database("alerts") as (_, connection):
        due = run(connection, id=id, channel=channel)
    out.print(f"{counted(due, 'delivery is', 'deliveries are')} due now")


@app.command()
def send_test(
    channel: Annotated[str, typer.Option(help="The channel's name.")],
    wait: Annotated[
        int, typer.Option(min=1, help="Seconds to wait for the first attempt of `antenna alerts deliver`.")
    ] = 75,
) -> None:
    """Send a test to one channel, by the running deliverer, and show the result; exit code 1 if it failed."""
    from antenna_assets.operations.alerts.review import try_channel

    with database("alerts") as (_, connection):
        found = try_channel(connection, channel, patience=wait)
    if found.state == "delivered":
        note = f", but {found.last_error}" if found.last_error else ""
        out.print(f"delivered{note}", markup=False, soft_wrap=True)
        return
    if found.attempts:
        reason = found.last_error or "no reason is known"
    else:
        reason = f"there was no attempt within {wait} s"
        if found.next_attempt is not None and found.next_attempt > found.created_at + timedelta(seconds=wait):
            reason += f": the receiver asked for a pause until {found.next_attempt:%Y-%m-%d %H:%M:%S} UTC"
        else:
            reason += "; is `antenna alerts deliver` running, and not busy with other notices?"
    out.print(f"not delivered: {reason}", markup=False, soft_wrap=True)
    raise typer.Exit(1)
