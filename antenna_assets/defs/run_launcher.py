"""DefaultRunLauncher with worker health checks (decision 8).

They let run monitoring end a run whose worker died together with its code server. Otherwise such a run would
stay STARTED for hours, and the sensor would skip its hours meanwhile. `docker/dagster.yaml` names the class.
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

# A worker takes its lock just after its run is STARTED and releases it just before the run has ended: one
# check may fall in between, so two are needed, this many seconds apart.
DEAD_AFTER = 5.0


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs as Dagster does, and reports the health of their workers."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._free_since: dict[str, float] = {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Always True."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the worker of a STARTED run is alive; that of a foreign run is assumed to be."""
        # The six assets use PostgreSQL, and with it the lock.
        if not publishes_hours(run) or self._seconds_free(run.run_id) < DEAD_AFTER:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.FAILED,
            "expected the run's worker to hold the run's lock in PostgreSQL, and nobody holds it: the worker "
            "died",
        )

    def _seconds_free(self, run_id: str) -> float:
        """For how many seconds this object has seen the run's lock free; negative if it is held."""
        with connect(postgres_url(load_settings()), application="antenna run monitoring") as connection:
            if is_locked(connection, run_id):
                self._free_since.pop(run_id, None)
                return -1
        now = time.monotonic()
        return now - self._free_since.setdefault(run_id, now)
