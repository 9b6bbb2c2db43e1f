"""Dagster instances as users have them, for tests that depend on where its events are stored."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
import yaml

from antenna_assets.clients.postgres import dagster_url
from antenna_assets.storage.project_files import docker_folder


@contextmanager
def instance_in_postgres(postgres_url: str, folder: Path) -> Iterator[dg.DagsterInstance]:
    """Open Dagster with the storage of `docker/dagster.yaml`: in the schema `dagster` of this database."""
    storage = yaml.safe_load((docker_folder() / "dagster.yaml").read_text(encoding="utf-8"))["storage"]
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_POSTGRES_URL", dagster_url(postgres_url))
        with dg.instance_for_test(temp_dir=str(folder), overrides={"storage": storage}) as opened:
            yield opened
