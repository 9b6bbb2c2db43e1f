"""What `antenna up` does: services, schema and Dagster's home. Also the environment for them."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from antenna_assets import file_modes
from antenna_assets.clients.migrations import migrate
from antenna_assets.clients.postgres import connect, dagster_url
from antenna_assets.domain.counted import counted
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.billing_zone import record_billing_zone
from antenna_assets.ledger.first_partition import record_first_partition, require_start
from antenna_assets.settings import Settings, is_local
from antenna_assets.stack import services
from antenna_assets.stack.services import Services
from antenna_assets.storage.project_files import docker_folder

_OURS = (
    *("lake", "dagster", "kafka", "spill", "checkpoints", "replays", "logs", "superset", "spark"),
    *("up.lock", "first-partition", "demo-answers.json"),
)
"""What this project creates in a state directory, besides PostgreSQL's folder. Other files are left alone."""


def start(settings: Settings, say: Callable[[str], None]) -> Services:
    """Start the embedded services, migrate the database, and write Dagster's home. Idempotent."""
    found = services.up(settings, say)
    commit_point("up.services_started")
    changed = tighten(settings)
    if changed:
        say(
            f"{counted(changed, 'file or folder is', 'files and folders are')} now accessible to the owner"
            " only, by ANTENNA_UMASK"
        )
    with connect(found.postgres_url, application="antenna up") as connection:
        applied = migrate(connection)
        recorded = record_first_partition(connection, settings)
        # Without the setting, the recorded one is in force from now on.
        require_start(connection, settings.start if "start" in settings.model_fields_set else recorded)
        record_billing_zone(connection, settings.billing_zone)
    if applied:
        say(f"applied {counted(len(applied), 'migration')}")
    home = dagster_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    commit_point("up.before_dagster_yaml")
    shutil.copyfile(docker_folder() / "dagster.yaml", home / "dagster.yaml")
    return found


def tighten(settings: Settings) -> int:
    """Apply ANTENNA_UMASK to the state and lake of earlier versions; return how many files changed."""
    home = settings.home
    changed = sum(file_modes.tighten(home / name) for name in _OURS)
    if is_local(settings.lake_uri):
        changed += file_modes.tighten(Path(settings.lake_uri))
    # PostgreSQL, which root runs as another user, must traverse them. Its own folders belong to that user.
    for folder in (home / "postgres", home):
        changed += file_modes.take(folder, file_modes.umask() & ~(0o001 if os.geteuid() == 0 else 0))
    return changed


def dagster_home(settings: Settings) -> Path:
    """Return the folder with the configuration of Dagster's instance and the logs of its runs."""
    return settings.home / "dagster"


def environment(settings: Settings) -> dict[str, str]:
    """Return the settings in force and those of Dagster as environment variables.

    Raises:
        ServicesError: a service is neither configured nor running.
    """
    found = services.services(settings)
    return {
        **settings.exports(),
        "ANTENNA_POSTGRES_URL": found.postgres_url,
        "ANTENNA_KAFKA_BOOTSTRAP": found.kafka_bootstrap,
        "DAGSTER_HOME": str(dagster_home(settings)),
        "DAGSTER_POSTGRES_URL": dagster_url(found.postgres_url),
    }


@contextmanager
def environment_of(settings: Settings) -> Iterator[None]:
    """Set the variables that `antenna env` prints in this process, for Dagster's instance."""
    before = dict(os.environ)
    os.environ.update(environment(settings))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
