"""How the end-to-end tests run Dagster: the real sensor and job on an instance of the test's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from antenna_assets.local_runs import publish


@contextmanager
def instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of the test's own."""
    folder.mkdir(exist_ok=True)
    with dg.instance_for_test(temp_dir=str(folder)) as opened:
        yield opened


def publish_what_the_sensor_asks_for(on: dg.DagsterInstance) -> int:
    """Tick and run until the sensor asks for nothing; the number of runs, each of which must succeed."""
    results = [run for _hours, run in publish(on)]
    assert all(run.success for run in results)
    return len(results)
