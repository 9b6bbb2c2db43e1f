"""The embedded services: `up`, `down`, `env`, `doctor` and `dashboards`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from antenna_assets.cli.console import out, say, stop_on_signals


def up() -> None:
    """Start the embedded PostgreSQL and Kafka, and migrate the database. Safe to repeat."""
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.start import start

    services = start(load_settings(), say)
    out.print(f"Kafka       {services.kafka_bootstrap}")
    out.print("PostgreSQL  is up; `antenna env` prints its address and the other settings")


def down() -> None:
    """Stop the embedded PostgreSQL and Kafka. Their data is kept."""
    from antenna_assets.settings import load_settings
    from antenna_assets.stack import services

    services.down(load_settings(), say)


def env() -> None:
    """Print the settings in force for `eval "$(antenna env)"`. The output contains the database password."""
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.start import environment

    for name, value in environment(load_settings()).items():
        quoted = value.replace("'", "'\\''")
        sys.stdout.write(f"export {name}='{quoted}'\n")


def doctor() -> None:
    """Check Java, jars, disk, ports and services, and say how to fix problems. Exit code 1 if any."""
    from antenna_assets.domain.fitting_table import FittingTable
    from antenna_assets.operations.doctor import findings
    from antenna_assets.settings import load_settings

    table = FittingTable("check", "", "found", "fix")
    failed = 0
    for finding in findings(load_settings()):
        failed += not finding.ok
        mark = "[green]ok[/green]" if finding.ok else "[red]wrong[/red]"
        table.add_row(finding.name, mark, finding.found, "" if finding.ok else finding.fix)
    out.print(table)
    if failed:
        raise typer.Exit(1)


def dashboards(
    write: Annotated[
        Path | None,
        typer.Option(
            help="Do not start it: write the dashboards as they are in Superset now into this folder."
        ),
    ] = None,
) -> None:
    """Start Superset on 127.0.0.1 with the dashboards of docker/superset, and stop it with Ctrl-C.

    The first time it installs Superset. The address and a password are printed.
    """
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.start import start
    from antenna_assets.stack.superset import superset, write_dashboards

    settings = load_settings()
    if write is not None:
        write_dashboards(settings, write)
        return
    found = start(settings, say)
    with stop_on_signals() as stop, superset(settings, found.postgres_url, say=say) as on:
        out.print(f"usage and quota        {on.url}/superset/dashboard/usage-and-quota/", soft_wrap=True)
        out.print(f"trust in the pipeline  {on.url}/superset/dashboard/trust/", soft_wrap=True)
        out.print(f"user {on.user}, password {on.password} (Ctrl-C stops it)", soft_wrap=True)
        stop.wait()
