"""How the end-to-end tests run Dagster: the real sensor, job and instance, in the test's own process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from antenna_assets.definitions import build_definitions
from antenna_assets.sensors import closed_hours


@contextmanager
def instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of the test's own."""
    folder.mkdir(exist_ok=True)
    with dg.instance_for_test(temp_dir=str(folder)) as opened:
        yield opened


def tick(on: dg.DagsterInstance) -> list[dg.RunRequest]:
    """What the sensor asks for now."""
    repository = build_definitions().get_repository_def()
    with dg.build_sensor_context(
        instance=on, repository_def=repository, sensor_name=closed_hours.name
    ) as context:
        return list(closed_hours.evaluate_tick(context).run_requests)


def execute(on: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """Run what the sensor asked for."""
    job = build_definitions().resolve_job_def("hourly_usage")
    return job.execute_in_process(
        instance=on, partition_key=request.partition_key, tags=dict(request.tags), raise_on_error=False
    )


def publish_what_the_sensor_asks_for(on: dg.DagsterInstance) -> int:
    """Tick and run until the sensor asks for nothing; the number of runs, each of which must succeed."""
    runs = 0
    while requests := tick(on):
        for request in requests:
            assert execute(on, request).success
            runs += 1
    return runs
