"""The services of the profile `secure`, started for a module of tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from antenna_assets.clients.kafka_config import read_kafka_config
from antenna_assets.stack.kafka_topic import ensure_topic
from antenna_assets_tests.containers.secured import (
    TOPIC,
    Secured,
    make_secrets,
    secured_kafka,
    secured_postgres,
)
from antenna_assets_tests.free_ports import free_port


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """Kafka and PostgreSQL with TLS, the topic, and the logins of docker/make_secrets.py."""
    # Not of pytest: PostgreSQL's OS user must get there.
    with tempfile.TemporaryDirectory(prefix="antenna-secured-") as name:
        home = Path(name)
        home.chmod(0o755)
        kafka, postgres = (f"127.0.0.1:{port}" for port in (free_port(), free_port()))
        folder = home / "secrets"
        make_secrets(folder, "secure", "--kafka", kafka, "--postgres", postgres)
        with (
            secured_postgres(home, folder, int(postgres.split(":")[1])),
            secured_kafka(home / "kafka", folder, int(kafka.split(":")[1])),
        ):
            ensure_topic(kafka, TOPIC, config=read_kafka_config(folder / "kafka_owner"))
            yield Secured(kafka, postgres, folder)
