"""Making the system ready: services, schema and Dagster's home; and the environment that points to them.

Starting and stopping a service is in `stack/`; the schema is applied by `database.py`.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from antenna_assets.crash import commit_point
from antenna_assets.database import connect, dagster_url, migrate
from antenna_assets.first_partition import record_first_partition, require_start
from antenna_assets.project_files import docker_folder
from antenna_assets.settings import Settings
from antenna_assets.stack import services
from antenna_assets.stack.services import Services


def start(settings: Settings, say: Callable[[str], None]) -> Services:
    """Start what is embedded, migrate the database, and write Dagster's home. Again is harmless."""
    found = services.up(settings, say)
    commit_point("up.services_started")
    with connect(found.postgres_url, application="antenna up") as connection:
        applied = migrate(connection)
        recorded = record_first_partition(connection, settings)
        # Without a setting it is the recorded one from now on.
        require_start(connection, settings.start if "start" in settings.model_fields_set else recorded)
    if applied:
        say(f"applied {len(applied)} migrations")
    home = dagster_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    commit_point("up.before_dagster_yaml")
    shutil.copyfile(docker_folder() / "dagster.yaml", home / "dagster.yaml")
    return found


def dagster_home(settings: Settings) -> Path:
    """Where Dagster's instance keeps its configuration and its runs' logs."""
    return settings.home / "dagster"


def environment(settings: Settings) -> dict[str, str]:
    """The settings in force and what Dagster reads, as environment variables.

    Raises:
        ServicesError: a service is neither running nor set to an external one.
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
    """The environment that `antenna env` prints, for Dagster's instance in this process."""
    before = dict(os.environ)
    os.environ.update(environment(settings))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
