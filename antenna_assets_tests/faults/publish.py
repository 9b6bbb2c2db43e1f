"""Publishing in a process of its own, as it must be possible to kill it: one hour's run, or one tick of the sensor.

The process is forked from a server that has imported Dagster already: a second instead of five.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from antenna_assets.definitions import build_definitions
from antenna_assets.local_runs import tick
from antenna_assets.settings import Settings

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])


def publish_hour(key: str) -> None:
    """Run the six assets for an hour; a run that fails raises."""
    job = build_definitions().resolve_job_def("hourly_usage")
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance, tags={"dagster/partition": key})


def tick_once(folder: str) -> None:
    """One tick of the sensor on the instance of a folder."""
    with dg.instance_for_test(temp_dir=folder) as instance:
        tick(instance)


def die(settings: Settings, crash_at: str, what: Callable[[str], None], argument: str | Path) -> None:
    """Call the function in a process of its own, which must die at the point."""
    environment = {**settings.exports(), "ANTENNA_CRASH_AT": crash_at}
    process = _PROCESSES.Process(target=_call, args=(environment, what, str(argument)))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, (
        f"expected to be killed at {crash_at}, found {process.exitcode}"
    )


def _call(environment: dict[str, str], what: Callable[[str], None], argument: str) -> None:
    os.environ.update(environment)
    what(argument)
