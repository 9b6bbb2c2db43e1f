"""The `antenna` command: arguments in, one clear error out.

The modules beside this one describe the commands' arguments and wire them to the settings; what the commands do lies
in the rooms below. Engines, Kafka and PostgreSQL are imported by the command that needs them, so that `--help` is quick.
"""

import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape

from antenna_assets.cli import (
    backfill,
    certificates,
    lake,
    operations,
    quarantine,
    services,
    simulate,
    stream,
)
from antenna_assets.cli.console import err
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import require_known

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hourly facts about mobile antennas: from Kafka to users over quota, every number with a proof.",
)
COMMANDS: tuple[Callable[..., Any], ...] = (
    services.up,
    services.down,
    services.env,
    simulate.demo,
    simulate.simulate,
    stream.stream,
    stream.accept_loss,
    stream.reopen,
    operations.status,
    simulate.check,
    services.doctor,
    certificates.certificate,
    certificates.verify,
    certificates.anchor,
    operations.report,
    services.dashboards,
    operations.metrics,
    backfill.backfill,
    operations.forget_user,
    lake.sweep,
    lake.adopt_lake,
    lake.rebuild_table,
)
"""In the order of `antenna --help`: a name's underscores are hyphens there."""

for command in COMMANDS:
    app.command()(command)
app.add_typer(quarantine.app, name="quarantine")


@app.callback()
def require_known_failpoint() -> None:
    """Refuse a wrong ANTENNA_CRASH_AT before anything is done."""
    require_known()


def main() -> None:
    """Run the command line; an expected error is one sentence and exit code 1."""
    try:
        app()
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        err.print(f"[bold red]error:[/bold red] {escape(told)}", soft_wrap=True)
        sys.exit(1)


def _told(error: Exception) -> str | None:
    """The sentence of an expected error; of PostgreSQL's those that pass by themselves are."""
    if isinstance(error, AntennaError):
        return str(error)
    if "psycopg" not in sys.modules:
        return None
    import psycopg

    from antenna_assets.clients.postgres_errors import passes, told

    if isinstance(error, psycopg.Error) and passes(error):
        return f"{told(error)}; what was committed stays, run the command again"
    return None
