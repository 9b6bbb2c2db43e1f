"""The sensor's ticks and the runs that it asks for, in this process, with the definitions under the present settings."""

from collections.abc import Iterator

import dagster as dg

from antenna_assets.definitions import build_definitions
from antenna_assets.defs import local_runs


def tick(instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """What the sensor asks for now."""
    return local_runs.tick(build_definitions(), instance)


def execute(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """Run what the sensor asked for."""
    return local_runs.execute(build_definitions(), instance, request)


def publish(instance: dg.DagsterInstance) -> Iterator[tuple[str, dg.ExecuteInProcessResult]]:
    """Tick and run until the sensor asks for nothing."""
    return local_runs.publish(build_definitions(), instance)
