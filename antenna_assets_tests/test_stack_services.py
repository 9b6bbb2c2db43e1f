import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from antenna_assets.clients.kafka_config import PLAIN
from antenna_assets.settings import Settings
from antenna_assets.stack import kafka, kafka_topic, postgres, services

EXTERNAL = {"postgres_url": "postgresql://user:secret@example.org/db", "kafka_bootstrap": "example.org:9092"}

UP = """
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from antenna_assets.settings import Settings
from antenna_assets.stack import services
print(services.up(Settings(home=Path(sys.argv[1])), lambda text: print(text, file=sys.stderr)))
"""


def processes(home: Path) -> list[psutil.Process]:
    """Every process whose command line names the state directory."""
    return [
        p
        for p in psutil.process_iter(["cmdline"])
        if str(home.resolve()) in " ".join(p.info["cmdline"] or [])
    ]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty directory, not of pytest: each new session closes pytest's to PostgreSQL's OS user."""
    with tempfile.TemporaryDirectory(prefix="a folder ") as path:
        yield Path(path)


@pytest.mark.services
def test_two_up_at_once_start_everything_once_and_down_stops_it(folder: Path) -> None:
    home = folder / "a home"
    settings = Settings(home=home)
    said: list[str] = []
    command = [sys.executable, "-c", UP, str(home)]
    try:
        first, second = (
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        )
        outcomes = [process.communicate(timeout=120) for process in (first, second)]
        assert (first.returncode, second.returncode) == (0, 0), outcomes
        found = services.services(settings)
        assert [outcome[0].strip() for outcome in outcomes] == [repr(found)] * 2
        assert sum(outcome[1].count(" started on ") for outcome in outcomes) == 2
        assert sum(outcome[1].count(" runs on ") for outcome in outcomes) == 2
        assert found.postgres_url.rpartition("@")[0] not in outcomes[0][1]
        with psycopg.connect(found.postgres_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert "devices" in kafka_topic.admin_client(found.kafka_bootstrap).list_topics(timeout=10).topics
    finally:
        services.down(settings, said.append)
    assert said == ["Kafka stopped", "PostgreSQL stopped"]
    assert processes(home) == []
    with pytest.raises(services.ServicesError):
        services.services(settings)


@pytest.mark.services
def test_what_up_has_started_is_stopped_when_the_other_one_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    start = postgres.start

    def fail(home: Path) -> str:
        while postgres.running(home) is None:
            pass
        raise kafka.KafkaError("Kafka ended while it was starting")

    monkeypatch.setattr(postgres, "start", lambda home: started.append(start(home)) or started[0])
    monkeypatch.setattr(kafka, "start", fail)
    with pytest.raises(services.ServicesError, match="Kafka ended while it was starting"):
        services.up(Settings(home=folder), lambda _: None)
    assert len(started) == 1
    assert processes(folder) == []


@pytest.mark.services
def test_what_ran_before_up_keeps_running_when_the_other_one_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> str:
        raise kafka.KafkaError("no")

    url = postgres.start(folder)
    try:
        monkeypatch.setattr(kafka, "start", fail)
        with pytest.raises(services.ServicesError):
            services.up(Settings(home=folder), lambda _: None)
        assert postgres.running(folder) == url
    finally:
        postgres.stop(folder)


def test_external_settings_win_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics: list[tuple[object, ...]] = []
    monkeypatch.setattr(kafka_topic, "ensure_topic", lambda *where, config: topics.append((*where, config)))
    settings = Settings(home=tmp_path, **EXTERNAL)
    expected = services.Services(**EXTERNAL)
    assert services.services(settings) == expected
    assert services.up(settings, pytest.fail) == expected
    assert topics == [("example.org:9092", "devices", PLAIN)]
    services.down(settings, pytest.fail)
    assert not (tmp_path / "kafka").exists()
    assert not (tmp_path / "postgres").exists()


def test_a_service_that_is_missing_names_its_setting_and_up(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "nothing")
    with pytest.raises(services.ServicesError) as postgres_missing:
        services.services(settings)
    with pytest.raises(services.ServicesError) as kafka_missing:
        services.kafka_bootstrap(settings)
    where = tmp_path / "nothing"
    assert str(postgres_missing.value) == (
        f"PostgreSQL is not running under {where} and ANTENNA_POSTGRES_URL is not set; run `antenna up`"
    )
    assert str(kafka_missing.value) == (
        f"Kafka is not running under {where} and ANTENNA_KAFKA_BOOTSTRAP is not set; run `antenna up`"
    )


def test_a_command_that_needs_one_service_does_not_ask_for_the_other(tmp_path: Path) -> None:
    assert services.postgres_url(Settings(home=tmp_path, postgres_url="postgresql://x")) == "postgresql://x"
    assert services.kafka_bootstrap(Settings(home=tmp_path, kafka_bootstrap="x:1")) == "x:1"


def test_down_of_nothing_is_harmless_and_makes_nothing(tmp_path: Path) -> None:
    services.down(Settings(home=tmp_path / "nothing"), pytest.fail)
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(services.ServicesError, match="file"):
        services.up(Settings(home=tmp_path / "file" / "home"), lambda _: None)


def test_an_embedded_address_that_antenna_env_exported_is_still_embedded(tmp_path: Path) -> None:
    for name in ("postgres", "kafka"):
        (tmp_path / name).mkdir()
    (tmp_path / "postgres" / "ports.json").write_text("[7001]")
    (tmp_path / "kafka" / "ports.json").write_text("[7002, 7003]")
    exported = Settings(
        home=tmp_path,
        postgres_url="postgresql://u:p@127.0.0.1:7001/antenna",
        kafka_bootstrap="127.0.0.1:7002",
    )
    assert (services.external_postgres(exported), services.external_kafka(exported)) == (None, None)
    other = Settings(
        home=tmp_path, postgres_url="postgresql://u:p@127.0.0.1:7009/antenna", kafka_bootstrap="k:7002"
    )
    assert services.external_postgres(other) == other.postgres_url
    assert services.external_kafka(other) == "k:7002"
