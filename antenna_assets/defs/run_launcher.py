"""Dagster's own run launcher, and one thing more: it knows whether the worker of a run is alive.

With this, run monitoring ends a run whose worker died together with its code server; without, such a run stays
STARTED for hours and the sensor leaves its hours alone. `docker/dagster.yaml` names the class.
"""

import time

from dagster import DagsterRun, DefaultRunLauncher
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._serdes import ConfigurableClassData

from antenna_assets.clients.postgres import connect
from antenna_assets.defs.jobs import publishes_hours
from antenna_assets.defs.run_lock import is_locked
from antenna_assets.settings import load_settings
from antenna_assets.stack.services import postgres_url

# A worker takes its lock just after its run is STARTED and lets go of it just before the run has ended: one look may
# fall in between, so that it takes two, this many seconds apart.
DEAD_AFTER = 5.0


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs as Dagster does, and tells run monitoring which of them have lost their worker."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._free_since: dict[str, float] = {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: that is what this class is for."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the worker of a STARTED run lives. A run that is none of ours counts as alive: nothing is known of it."""
        # The six assets are given PostgreSQL, and with it the lock.
        if not publishes_hours(run) or self._seconds_free(run.run_id) < DEAD_AFTER:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.FAILED,
            "expected the run's worker to hold the run's lock in PostgreSQL, and nobody holds it: the worker died",
        )

    def _seconds_free(self, run_id: str) -> float:
        """For how long this object has seen nobody hold the run's lock; negative if somebody holds it."""
        with connect(postgres_url(load_settings()), application="antenna run monitoring") as connection:
            if is_locked(connection, run_id):
                self._free_since.pop(run_id, None)
                return -1
        now = time.monotonic()
        return now - self._free_since.setdefault(run_id, now)
