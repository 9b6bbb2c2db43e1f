"""Jars as a Maven repository serves them, here a small one on 127.0.0.1."""

import hashlib
import os
import stat
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from antenna_assets.stack import jars

CHECKOUT = Path(__file__).resolve().parent.parent
FIRST, SECOND = b"the first jar", b"the second jar"
PLACES = {
    "org.example:first:1.0": "/org/example/first/1.0/first-1.0.jar",
    "org.example.more:second:2.0": "/org/example/more/second/2.0/second-2.0.jar",
}


class Repository:
    """What it serves, by path, and the paths that were asked for."""

    def __init__(self) -> None:
        self.served = dict(zip(PLACES.values(), (FIRST, SECOND), strict=True))
        self.asked: list[str] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        content = self.served.get(request.path)
        request.send_response(404 if content is None else 200)
        request.end_headers()
        request.wfile.write(content or b"")


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Repository]:
    """A lock of two jars, a jars' home of its own, and the repository that has them."""
    repository = Repository()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            repository.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    rows = "".join(
        f'"{coordinate}" = "{hashlib.sha256(content).hexdigest()}"\n'
        for coordinate, content in zip(PLACES, (FIRST, SECOND), strict=True)
    )
    lock = tmp_path / "jars.lock.toml"
    lock.write_text(f"[kafka]\n{rows}")
    monkeypatch.setattr(jars, "LOCK", lock)
    monkeypatch.setattr(jars.sys, "prefix", str(tmp_path / "a prefix"))
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(jars, "_repository", lambda: f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever).start()
        yield repository
        server.shutdown()


def test_missing_jars_are_fetched_in_the_order_of_the_lock(repository: Repository) -> None:
    said: list[str] = []
    paths = jars.ensure("kafka", said.append)
    assert [path.name for path in paths] == ["first-1.0.jar", "second-2.0.jar"]
    assert [path.read_bytes() for path in paths] == [FIRST, SECOND]
    assert sorted(repository.asked) == sorted(PLACES.values())
    assert said == ["kafka jars: 2 of 2"]


@pytest.mark.usefixtures("repository")
def test_whoever_runs_the_program_may_read_its_jars() -> None:
    mask = os.umask(0o077)
    try:
        paths = jars.ensure("kafka")
    finally:
        os.umask(mask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o644}
    assert stat.S_IMODE(jars.jars_home().stat().st_mode) == 0o755


@pytest.mark.usefixtures("repository")
def test_what_is_there_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    jars.ensure("kafka")
    monkeypatch.setattr(jars, "_repository", lambda: pytest.fail("the repository was asked for"))
    assert len(jars.ensure("kafka")) == 2


@pytest.mark.parametrize(
    "content", [FIRST[:-1], b"X" + FIRST[1:], b""], ids=["truncated", "tampered", "empty"]
)
def test_a_jar_that_was_changed_is_replaced(repository: Repository, content: bytes) -> None:
    path = jars.ensure("kafka")[0]
    repository.asked.clear()
    path.write_bytes(content)
    assert [jar.name for jar in jars.missing("kafka")] == ["first-1.0.jar"]
    assert jars.ensure("kafka")[0].read_bytes() == FIRST
    assert repository.asked == ["/org/example/first/1.0/first-1.0.jar"]


def test_jars_copied_from_elsewhere_are_taken_if_their_sum_is_right(repository: Repository) -> None:
    folder = jars.jars_home() / "kafka"
    folder.mkdir(parents=True)
    (folder / "first-1.0.jar").write_bytes(FIRST)
    jars.ensure("kafka")
    assert repository.asked == ["/org/example/more/second/2.0/second-2.0.jar"]


def test_a_wrong_sum_after_the_download_is_one_clear_error(repository: Repository) -> None:
    place = PLACES["org.example:first:1.0"]
    repository.served[place] = b"not what was locked"
    with pytest.raises(
        jars.JarsError,
        match=r"(?s)example:first:1\.0 could not be fetched: .*expected sha256:\w+ but got \w+.*check the network",
    ):
        jars.ensure("kafka")
    assert repository.asked.count(place) == 3
    assert [*(jars.jars_home() / "kafka").iterdir()] == [jars.jars_home() / "kafka" / "second-2.0.jar"]


def test_a_jar_that_is_not_there_and_a_repository_that_is_not_are_clear_errors(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.served.clear()
    with pytest.raises(jars.JarsError, match=r"could not be fetched: 404 .*what was fetched is kept"):
        jars.ensure("kafka")
    monkeypatch.setattr(jars, "_repository", lambda: "http://127.0.0.1:9")
    with pytest.raises(
        jars.JarsError, match=r"could not be fetched: .*refused.*check the network, the proxy"
    ):
        jars.ensure("kafka")


def test_a_folder_that_cannot_be_written_is_a_clear_error(repository: Repository) -> None:
    folder = jars.jars_home()
    folder.parent.mkdir(parents=True)
    folder.write_text("a file in the folder's place")
    with pytest.raises(jars.JarsError, match=r"cannot write the jars to .*use a virtual environment"):
        jars.ensure("kafka")
    assert repository.asked == []


@pytest.mark.usefixtures("repository")
def test_a_jar_of_an_earlier_lock_does_not_stay_in_the_folder() -> None:
    stray = jars.ensure("kafka")[0].with_name("first-0.9.jar")
    stray.write_bytes(b"an older version")
    jars.ensure("kafka")[0].unlink()
    jars.ensure("kafka")
    assert not stray.exists()


def test_a_connector_of_another_version_than_pyspark_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "version", lambda _: "4.2.9")
    with pytest.raises(jars.JarsError, match=r"expected spark-sql-kafka-0-10_2\.13 4\.2\.9 .* found 4\.2\.0"):
        jars.spark_jars()


@pytest.mark.parametrize(
    ("lock", "sets"),
    [
        ("antenna_assets/stack/jars.lock.toml", ["spark", "s3", "gs", "kafka"]),
        ("benchmarks/flink_jars.lock.toml", ["flink"]),
        (
            "antenna_assets_tests/containers/postgres_jar.lock.toml",
            [
                "postgres-linux-amd64",
                "postgres-linux-arm64v8",
                "postgres-darwin-amd64",
                "postgres-darwin-arm64v8",
            ],
        ),
    ],
)
def test_a_lock_holds_the_sets_of_those_who_use_them_and_no_address(lock: str, sets: list[str]) -> None:
    text = (CHECKOUT / lock).read_text()
    assert [*tomllib.loads(text)] == sets
    assert "://" not in text


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
