"""The `antenna` command: arguments in, one clear error out.

Each module here declares the arguments of some commands and calls the rooms below. A command imports engines,
Kafka and PostgreSQL clients itself, so that `--help` stays quick.
"""

import gc
import sys
from collections.abc import Callable, Mapping
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from antenna_assets.cli import (
    alerts,
    allowance,
    backfill,
    certificates,
    lake,
    operations,
    quarantine,
    quota,
    services,
    simulate,
    stream,
)
from antenna_assets.cli.console import err
from antenna_assets.errors import AntennaError

COMMANDS: Mapping[str, tuple[Callable[..., Any] | typer.Typer, ...]] = {
    "Services": (services.up, services.down, services.env, services.doctor),
    "Traffic and stream": (simulate.demo, simulate.simulate, simulate.check, stream.stream),
    "Results": (
        operations.status,
        operations.usage,
        operations.report,
        services.dashboards,
        operations.metrics,
    ),
    "Quotas": (quota.app, allowance.allowance, alerts.app),
    "Proofs": (certificates.certificate, certificates.verify, certificates.anchor),
    "Maintenance": (backfill.backfill, quarantine.app, operations.forget_user, lake.sweep),
    "Repairs": (stream.accept_loss, stream.reopen, lake.adopt_lake, lake.rebuild_table),
}
"""By panel of `antenna --help`, in its order. A function's underscores are hyphens in the command's name."""


class InOrder(TyperGroup):
    """Lists commands as `COMMANDS` does: Typer would put those with subcommands first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the help."""
        order = [_name(command) for commands in COMMANDS.values() for command in commands]
        return sorted(super().list_commands(ctx), key=order.index)


def _name(command: Callable[..., Any] | typer.Typer) -> str:
    if isinstance(command, typer.Typer):
        return str(command.info.name)
    return command.__name__.replace("_", "-")


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hourly facts about mobile antennas: from Kafka to users over quota, every number with a proof.",
)
for panel, commands in COMMANDS.items():
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=_name(command), rich_help_panel=panel)
        else:
            app.command(rich_help_panel=panel)(command)


COLLECTED_AFTER = 100_000
"""How many objects are made, and not freed, before Python searches them for unreachable cycles.

With Python's 700 the messages of each poll are searched again and again: a third of the time it takes to
read them.
"""


@app.callback()
def begin() -> None:
    """Set up the process; refuse an unknown ANTENNA_CRASH_AT before anything is done."""
    gc.set_threshold(COLLECTED_AFTER)
    # With it come the settings, which cost the help 0.2 s.
    from antenna_assets.failpoints import require_known

    require_known()


def main() -> None:
    """Run the command line. An expected error is printed as one sentence, with exit code 1."""
    try:
        app()
    except Exception as error:
        message = _expected(error)
        if message is None:
            raise
        err.print(f"[bold red]error:[/bold red] {escape(message)}", soft_wrap=True)
        sys.exit(1)


def _expected(error: Exception) -> str | None:
    """The message of an expected error: one of this package, or a retryable one of PostgreSQL."""
    if isinstance(error, AntennaError):
        return str(error)
    if "psycopg" not in sys.modules:
        return None
    import psycopg

    from antenna_assets.clients.postgres_errors import error_line, is_retryable

    if isinstance(error, psycopg.Error) and is_retryable(error):
        return f"{error_line(error)}; committed work is kept: run the command again"
    return None
