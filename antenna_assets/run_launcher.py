"""Dagster's own run launcher, and one thing more: it knows whether the worker of a run is alive.

With this, run monitoring ends a run whose worker died together with its code server; without, such a run stays
STARTED for hours and the sensor leaves its hours alone. `docker/dagster.yaml` names the class.
"""

from datetime import UTC, datetime, timedelta

from dagster import DagsterRun, DefaultRunLauncher
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

from antenna_assets.database import connect
from antenna_assets.jobs import hourly_usage
from antenna_assets.run_lock import is_held
from antenna_assets.schema import ASSETS
from antenna_assets.settings import load_settings
from antenna_assets.stack.services import postgres_url

# A worker takes its lock some milliseconds after its run is STARTED; a machine under load gets a thousand times that.
TIME_TO_TAKE_THE_LOCK = timedelta(seconds=10)


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches runs as Dagster does, and tells run monitoring which of them have lost their worker."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: that is what this class is for."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the worker of a STARTED run lives. A run that is none of ours counts as alive: nothing is known of it."""
        if not _takes_the_lock(run) or self._has_just_started(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        with connect(postgres_url(load_settings()), application="antenna run monitoring") as connection:
            if is_held(connection, run.run_id):
                return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.FAILED,
            "expected the run's worker to hold the run's lock in PostgreSQL, found it dead",
        )

    def _has_just_started(self, run: DagsterRun) -> bool:
        record = self._instance.get_run_record_by_id(run.run_id)
        if record is None or record.start_time is None:
            return True
        return datetime.now(UTC) < datetime.fromtimestamp(record.start_time, UTC) + TIME_TO_TAKE_THE_LOCK


def _takes_the_lock(run: DagsterRun) -> bool:
    """The six assets are given PostgreSQL, and with it the lock, whoever runs them."""
    chosen = {key.to_user_string() for key in run.asset_selection or ()}
    return run.job_name == hourly_usage.name or (bool(chosen) and chosen <= set(ASSETS))
