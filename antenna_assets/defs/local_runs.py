"""The sensors and jobs without Dagster's daemon: a tick, and the runs that it requests, in this process.

The demonstration and the tests use it, with the real sensors, jobs and instance.
"""

from collections.abc import Iterator

import dagster as dg

from antenna_assets.defs.jobs import hourly_usage
from antenna_assets.defs.requested_runs import RANGE_END_TAG, RANGE_START_TAG
from antenna_assets.defs.resources import default_resources
from antenna_assets.defs.sensors import closed_hours
from antenna_assets.settings import load_settings


def tick(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    sensor: dg.SensorDefinition = closed_hours,
) -> list[dg.RunRequest]:
    """The runs that the sensor requests now."""
    context = dg.build_sensor_context(
        instance=instance,
        repository_def=definitions.get_repository_def(),
        sensor_name=sensor.name,
        resources={"postgres": default_resources(load_settings())["postgres"]},
    )
    with context:
        return list(sensor.evaluate_tick(context).run_requests or [])


def execute(
    definitions: dg.Definitions, instance: dg.DagsterInstance, request: dg.RunRequest
) -> dg.ExecuteInProcessResult:
    """Execute a run that the sensor requested; a failure is in the result, and on stderr."""
    job = definitions.resolve_job_def(request.job_name or hourly_usage.name)
    return job.execute_in_process(
        instance=instance,
        partition_key=request.partition_key,
        tags=dict(request.tags),
        run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
        raise_on_error=False,
    )


def publish(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> Iterator[tuple[str, dg.ExecuteInProcessResult]]:
    """Tick and execute until the sensor requests nothing; yields the hours and the result of each run."""
    while requests := tick(definitions, instance):
        for request in requests:
            hours = (
                request.partition_key or f"{request.tags[RANGE_START_TAG]} to {request.tags[RANGE_END_TAG]}"
            )
            yield hours, execute(definitions, instance, request)
