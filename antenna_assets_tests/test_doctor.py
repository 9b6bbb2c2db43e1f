import shutil
import socket
import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from antenna_assets.clients import clock
from antenna_assets.operations import doctor
from antenna_assets.operations.doctor import Finding, run
from antenna_assets.settings import Settings
from antenna_assets.stack import jars, java, kafka_topic, ports


def look(settings: Settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.findings(settings)}


def test_every_problem_has_a_fix_and_nothing_else_has(tmp_path: Path) -> None:
    found = look(Settings(home=tmp_path / "home"))
    assert list(found) == [
        "Python", "Java", "Kafka jars", "state directory", "disk", "lake",
        "PostgreSQL", "Kafka", "topic", "ports", "DAGSTER_HOME",
    ]  # fmt: skip
    assert all(finding.found and bool(finding.fix) == (not finding.ok) for finding in found.values())
    assert {name for name, finding in found.items() if not finding.ok} >= {"PostgreSQL", "Kafka", "topic"}
    assert found["PostgreSQL"].fix == "run `antenna up`"
    assert list(tmp_path.iterdir()) == []


# It waits for PostgreSQL's time-out, and so is no unit test.
@pytest.mark.services
@pytest.mark.serial
def test_external_services_that_never_answer_cost_seconds_and_show_no_password(tmp_path: Path) -> None:
    with socket.socket() as silent:  # accepts, and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        settings = Settings(
            home=tmp_path,
            postgres_url=f"postgresql://me:top-secret@127.0.0.1:{port}/db",
            kafka_bootstrap="127.0.0.1:1",
        )
        begin = time.monotonic()
        found = look(settings)
        assert time.monotonic() - begin < 15
    assert not found["PostgreSQL"].ok
    assert "top-secret" not in str(found)
    assert found["PostgreSQL"].fix == "check ANTENNA_POSTGRES_URL"
    assert found["Kafka"].found == "no Kafka accepts connections on 127.0.0.1:1"
    assert "ANTENNA_KAFKA_BOOTSTRAP" in found["Kafka"].fix


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:top-secret@[broken/db", "postgresql://me:top-secret@127.0.0.1:1/db", "top-secret"],
)
def test_a_broken_url_does_not_show_its_password(tmp_path: Path, url: str) -> None:
    found = look(Settings(home=tmp_path, postgres_url=url))["PostgreSQL"]
    assert not found.ok
    assert "top-secret" not in str(found)


def test_no_java_is_found_with_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_java() -> Path:
        raise java.JavaError("expected Java 17 to 21, found none")

    monkeypatch.setattr(java, "java_home", no_java)
    assert look(Settings(home=tmp_path))["Java"].fix == "install OpenJDK 17 or 21 and set JAVA_HOME"


def test_missing_jars_are_found_with_their_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "jars_home", lambda: tmp_path)
    found = look(Settings(home=tmp_path, stream_engine="spark"))
    assert found["Kafka jars"].found.startswith("46 of 46 jars missing or changed in ")
    assert (
        found["Kafka jars"].fix == found["Spark connector"].fix == "run `python -m antenna_assets.stack.jars`"
    )


def test_a_connector_of_another_version_is_found_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "version", lambda _: "4.2.9")
    found = look(Settings(home=tmp_path, engine="spark"))
    assert found["Spark connector"].fix == "run `pip install pyspark==4.2.0`"


def test_spark_that_is_not_installed_is_found_with_the_image_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_package(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(jars, "version", no_package)
    found = look(Settings(home=tmp_path, stream_engine="spark"))["Spark connector"]
    assert (found.found, found.fix) == (
        "pyspark is not installed",
        "run `pip install 'antenna-assets[spark]'`; in containers use the image antenna-lakehouse-spark",
    )


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, ["Java", "Kafka jars"]),
        ({"kafka_bootstrap": "127.0.0.1:1"}, []),
        ({"kafka_bootstrap": "127.0.0.1:1", "stream_engine": "spark"}, ["Java", "Spark connector"]),
        ({"kafka_bootstrap": "127.0.0.1:1", "engine": "spark"}, ["Java", "Spark connector"]),
        # The server of Spark Connect has the Java.
        ({"kafka_bootstrap": "127.0.0.1:1", "engine": "spark", "spark_remote": "sc://127.0.0.1"}, []),
    ],
)
def test_java_and_spark_are_asked_for_where_something_needs_them(
    tmp_path: Path, settings: dict[str, Any], asked: list[str]
) -> None:
    found = look(Settings(home=tmp_path, **settings))
    assert [name for name in found if name in ("Java", "Spark connector", "Kafka jars")] == asked


def test_a_full_disk_is_found_with_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2e9))
    found = look(Settings(home=tmp_path))["disk"]
    assert (found.ok, found.found) == (False, f"2.0 GB free under {tmp_path}")
    assert "ANTENNA_HOME" in found.fix


def test_a_place_that_cannot_be_written_is_found_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = look(Settings(home=tmp_path / "file" / "home", lake=str(tmp_path / "file" / "lake")))
    assert "ANTENNA_HOME" in found["state directory"].fix
    assert "ANTENNA_LAKE" in found["lake"].fix


def test_a_store_that_does_not_answer_is_found_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION"):
        monkeypatch.setenv(f"AWS_{name}", "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    found = look(Settings(home=tmp_path, lake="s3://bucket/lake"))["lake"]
    assert not found.ok
    assert found.found.startswith("s3://bucket/lake cannot be listed: Could not connect to the endpoint URL")
    assert "ANTENNA_LAKE" in found.fix


def look_at_topic(
    monkeypatch: pytest.MonkeyPatch, home: Path, topics: dict[str, Any], config: dict[str, str]
) -> Finding:
    """What is found of the topic on a broker with these topics, each with this configuration."""

    def describe(resources: list[Any], **_: Any) -> dict[Any, Future[Any]]:
        answer: Future[Any] = Future()
        answer.set_result({name: SimpleNamespace(value=value) for name, value in config.items()})
        return dict.fromkeys(resources, answer)

    admin = SimpleNamespace(
        list_topics=lambda **_: SimpleNamespace(topics=topics, brokers={1: None}), describe_configs=describe
    )
    monkeypatch.setattr(kafka_topic, "admin_client", lambda *_: admin)
    monkeypatch.setattr(ports, "is_open", lambda *_: True)
    return look(Settings(home=home, kafka_bootstrap="somewhere:9092"))["topic"]


@pytest.mark.parametrize(
    ("topics", "policy", "ok", "words"),
    [
        ({}, "delete", False, "'devices' does not exist"),
        ({"devices": SimpleNamespace(partitions={0: 1, 1: 1})}, "compact", False, "cleanup.policy=compact"),
        ({"devices": SimpleNamespace(partitions={0: 1, 1: 1})}, "compact,delete", False, "compact,delete"),
        ({"devices": SimpleNamespace(partitions={0: 1, 1: 1})}, "delete", True, "'devices', 2 partitions"),
    ],
)
def test_the_topic_must_exist_and_not_be_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, topics: dict[str, Any], policy: str, ok: bool, words: str
) -> None:
    found = look_at_topic(monkeypatch, tmp_path, topics, {"cleanup.policy": policy})
    assert found.ok is ok
    assert words in found.found
    assert bool(found.fix) is not ok


@pytest.mark.parametrize(
    ("by", "kept", "ok"),
    [
        ("CreateTime", "604800000", False),
        ("LogAppendTime", "604800000", True),
        ("CreateTime", str(35 * 24 * 3600 * 1000), True),
        ("CreateTime", "-1", True),
        ("CreateTime", str(2**63 - 1), True),
    ],
)
def test_row_33_a_topic_that_forgets_by_its_senders_time_within_the_horizon_is_found_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, kept: str, ok: bool
) -> None:
    config = {"cleanup.policy": "delete", "message.timestamp.type": by, "retention.ms": kept}
    topics = {"devices": SimpleNamespace(partitions={0: 1})}
    found = look_at_topic(monkeypatch, tmp_path, topics, config)
    assert found.ok is ok
    assert ("keeps messages for 604,800 s" in found.found) is not ok
    assert found.fix == ("" if ok else "set message.timestamp.type=LogAppendTime")


def test_dagster_home_that_is_no_directory_is_found_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(Settings(home=tmp_path))["DAGSTER_HOME"].ok
    monkeypatch.setenv("DAGSTER_HOME", "relative")
    assert "antenna env" in look(Settings(home=tmp_path))["DAGSTER_HOME"].fix


def test_a_check_that_fails_by_itself_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("surprise")

    monkeypatch.setattr(run, "python_version", broken)
    assert look(Settings(home=tmp_path))["Python"].found == "RuntimeError: surprise"


@pytest.mark.services
def test_row_26_a_machine_whose_own_clock_differs_from_postgresqls_is_named_with_a_fix(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look(settings)["clock"] == Finding("clock", True, "as PostgreSQL's, within half a minute")
    monkeypatch.setattr(clock, "host_now", lambda: datetime.now(UTC) - timedelta(hours=1))
    found = look(settings)["clock"]
    assert not found.ok
    assert " behind PostgreSQL's, whose clock validates events and closes hours" in found.found
    assert found.fix == "correct this machine's clock, as by NTP"
