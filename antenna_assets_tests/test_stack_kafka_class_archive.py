"""The archive of Kafka's classes: a broker maps it if it is there (`test_stack_kafka.py`), and does without it if not."""

import sys
from pathlib import Path

import pytest

from antenna_assets.stack import kafka_class_archive, kafka_storage
from antenna_assets.stack.class_archive import make_archive
from antenna_assets.stack.jars import kafka_classpath
from antenna_assets.stack.kafka_class_archive import main, rehearse
from antenna_assets.stack.kafka_storage import KafkaError, class_archive, java_command


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the archive of an environment without one would be."""
    classpath = kafka_classpath()
    monkeypatch.setattr(kafka_storage, "kafka_classpath", lambda: classpath)
    monkeypatch.setattr(kafka_class_archive, "kafka_classpath", lambda: classpath)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return class_archive(classpath)


@pytest.mark.usefixtures("archive")
def test_without_an_archive_java_is_told_of_none() -> None:
    assert not [option for option in java_command() if "SharedArchiveFile" in option]


def test_an_archive_is_named_after_the_brokers_version(archive: Path, tmp_path: Path) -> None:
    assert archive.relative_to(tmp_path).as_posix() == "share/antenna/kafka_2.13-4.3.1.jsa"
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert f"-XX:SharedArchiveFile={archive}" in java_command()


def test_a_broker_that_fails_leaves_nothing_and_is_said_but_is_no_error(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise KafkaError("no port is free")

    monkeypatch.setattr(kafka_class_archive.kafka, "start", fail)
    with pytest.raises(KafkaError):
        make_archive(archive, rehearse)
    assert list(archive.parent.iterdir()) == []
    main()
    assert capsys.readouterr().err == "no port is free\n"


def test_an_archive_that_is_there_is_not_made_again(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"kept")
    monkeypatch.setattr(kafka_class_archive, "rehearse", lambda _: pytest.fail("expected it to be kept"))
    main()
    assert archive.read_bytes() == b"kept"
