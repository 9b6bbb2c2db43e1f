import hashlib
import os
from pathlib import Path

import pytest

from antenna_assets.stack import jars

FIRST, SECOND = b"the first jar", b"the second jar"
CONTENT = {"org.example:first:1.0": FIRST, "org.example:second:2.0": SECOND}


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A lock of two jars, a jars' home of its own, and the coordinates that were downloaded."""
    rows = "".join(
        f'[[kafka]]\ncoordinate = "{name}"\nsha256 = "{hashlib.sha256(content).hexdigest()}"\nsize = {len(content)}\n'
        for name, content in CONTENT.items()
    )
    lock = tmp_path / "jars.lock.toml"
    lock.write_text(rows)
    downloaded: list[str] = []

    def download(coordinate: str, repository: Path) -> Path:
        downloaded.append(coordinate)
        path = repository / "fetched.jar"
        path.write_bytes(CONTENT[coordinate])
        return path

    monkeypatch.setattr(jars, "LOCK", lock)
    monkeypatch.setattr(jars, "_download", download)
    monkeypatch.setattr(jars.time, "sleep", lambda _: None)
    monkeypatch.setattr(jars.sys, "prefix", str(tmp_path / "a prefix"))
    return downloaded


def test_missing_jars_are_fetched_in_the_order_of_the_lock(downloads: list[str]) -> None:
    said: list[str] = []
    paths = jars.ensure("kafka", said.append)
    assert [path.name for path in paths] == ["first-1.0.jar", "second-2.0.jar"]
    assert [path.read_bytes() for path in paths] == [FIRST, SECOND]
    assert sorted(downloads) == sorted(CONTENT)
    assert said[-1].startswith("kafka jars: 2 of 2")


def test_a_second_call_downloads_nothing_and_hashes_nothing(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jars.ensure("kafka")
    downloads.clear()
    monkeypatch.setattr(jars, "_sha256", lambda path: pytest.fail(f"{path} was hashed again"))
    assert len(jars.ensure("kafka")) == 2
    assert downloads == []


@pytest.mark.parametrize(
    "content", [FIRST[:-1], b"X" + FIRST[1:], b""], ids=["truncated", "tampered", "empty"]
)
def test_a_jar_that_was_changed_is_replaced(downloads: list[str], content: bytes) -> None:
    path = jars.ensure("kafka")[0]
    downloads.clear()
    path.write_bytes(content)
    os.utime(path, ns=(0, 0))  # whatever time a copy tool leaves on it
    assert [jar.name for jar in jars.missing("kafka")] == ["first-1.0.jar"]
    assert jars.ensure("kafka")[0].read_bytes() == FIRST
    assert downloads == ["org.example:first:1.0"]


def test_jars_copied_from_elsewhere_are_taken_if_their_sum_is_right(downloads: list[str]) -> None:
    folder = jars.jars_home() / "kafka"
    folder.mkdir(parents=True)
    (folder / "first-1.0.jar").write_bytes(FIRST)
    jars.ensure("kafka")
    assert downloads == ["org.example:second:2.0"]


def test_a_wrong_sum_after_the_download_is_one_clear_error(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONTENT, "org.example:first:1.0", b"not what was locked")
    with pytest.raises(
        jars.JarsError, match=r"org\.example:first:1\.0 could not be fetched: its SHA-256 is .*expected"
    ):
        jars.ensure("kafka")
    assert downloads.count("org.example:first:1.0") == 3
    assert not (jars.jars_home() / "kafka" / "first-1.0.jar").exists()
    assert list((jars.jars_home() / "kafka").glob(".fetch-*")) == []


def test_a_jar_of_an_earlier_lock_does_not_stay_in_the_folder(downloads: list[str]) -> None:
    stray = jars.ensure("kafka")[0].with_name("first-0.9.jar")
    stray.write_bytes(b"old")
    downloads.clear()
    (jars.jars_home() / "kafka" / "first-1.0.jar").unlink()
    jars.ensure("kafka")
    assert not stray.exists()


def test_a_broken_stamp_file_only_costs_the_hashing(downloads: list[str]) -> None:
    jars.ensure("kafka")
    downloads.clear()
    (jars.jars_home() / "kafka" / "stamps.json").write_text('{"first')
    assert jars.missing("kafka") == []
    assert downloads == []


def test_a_connector_of_another_version_than_pyspark_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "version", lambda _: "4.2.9")
    with pytest.raises(jars.JarsError, match=r"expected spark-sql-kafka-0-10_2\.13 4\.2\.9 .* found 4\.2\.0"):
        jars.spark_jars()


def test_the_lock_holds_no_address() -> None:
    assert "://" not in jars.LOCK.read_text()


def test_the_lock_holds_one_version_of_each_artifact() -> None:
    for name in ("spark", "kafka"):
        artifacts = [jar.coordinate.rpartition(":")[0] for jar in jars.locked(name)]
        assert len(artifacts) == len(set(artifacts))


def test_the_versions_in_the_lock_fit_each_other() -> None:
    versions = {
        tuple(jar.coordinate.split(":")[:2]): jar.coordinate.split(":")[2] for jar in jars.locked("kafka")
    }
    assert len({found for (group, _), found in versions.items() if group == "org.apache.kafka"}) == 1
    log4j = "org.apache.logging.log4j"
    assert versions[log4j, "log4j-slf4j-impl"] == versions[log4j, "log4j-core"]
    assert versions["org.slf4j", "slf4j-api"].startswith("1.7.")


def test_spark_gets_only_what_pyspark_does_not_ship() -> None:
    assert [jar.coordinate.split(":")[1] for jar in jars.locked("spark")] == [
        "commons-pool2",
        "kafka-clients",
        "spark-sql-kafka-0-10_2.13",
        "spark-token-provider-kafka-0-10_2.13",
    ]
