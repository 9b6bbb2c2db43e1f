"""The jars of Spark's Kafka connector and of its object stores, and of the Kafka broker.

Locked by SHA-256, fetched once, checked at each use. The benchmarks and the tests have sets of their own, in
locks of theirs.

Nothing here runs Java. Which Java runs them is `java`, how the broker is started is `kafka`.
"""

import hashlib
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from antenna_assets.errors import AntennaError
from antenna_assets.settings import STORES
from antenna_assets.storage.atomic_files import READABLE, program_folder, replace_file

LOCK = Path(__file__).with_name("jars.lock.toml")
CONNECTOR = "spark-sql-kafka-0-10_2.13"

# The broker's slf4j-api is 1.7, whose binding is log4j-slf4j-impl; its version is that of the broker's
# log4j-core.
_KAFKA_ROOTS = ("org.apache.kafka:kafka_2.13:4.3.1", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")
# Hadoop's version is that of the hadoop-client in pyspark, the SDK's that of hadoop-aws. Hadoop itself asks
# for the SDK's bundle of all services, which is 700 MB; what S3A uses of it is in these modules.
_S3_ROOTS = ("software.amazon.awssdk:s3:2.35.4", "software.amazon.awssdk:sts:2.35.4")
# Without what their poms ask for: the bundle, a version that is no number, and a client in native code.
_S3_ALONE = (
    "org.apache.hadoop:hadoop-aws:3.5.0",
    "software.amazon.awssdk:s3-transfer-manager:2.35.4",
    "software.amazon.s3.analyticsaccelerator:analyticsaccelerator-s3:1.3.1",
)
# Of the same Hadoop; all that it needs is in it.
_GS_ALONE = ("org.apache.hadoop:hadoop-gcp:3.5.0",)
_RETRIES = 2
_PARALLEL = 8
_SAY_EVERY = 10
_TIMEOUT_SECONDS = 60


class JarsError(AntennaError):
    """The jars are not what they should be; the message says which and what to do."""


@dataclass(frozen=True)
class Jar:
    """One locked jar: Maven coordinate `group:artifact:version` and SHA-256."""

    coordinate: str
    sha256: str

    @property
    def name(self) -> str:
        _, artifact, jar_version = self.coordinate.split(":")
        return f"{artifact}-{jar_version}.jar"

    @property
    def place(self) -> str:
        """Where every Maven repository has it."""
        group, artifact, jar_version = self.coordinate.split(":")
        return "/".join((*group.split("."), artifact, jar_version, self.name))


def jars_home() -> Path:
    """Where the jars of this Python environment are kept, in one folder per set."""
    return Path(sys.prefix) / "share" / "antenna" / "jars"


def locked(name: str, lock: Path | None = None) -> list[Jar]:
    """The jars of one set in the lock (in ours `spark`, `s3`, `gs` and `kafka`), in its order."""
    with (lock or LOCK).open("rb") as file:
        return [Jar(coordinate, sha256) for coordinate, sha256 in tomllib.load(file)[name].items()]


def spark_jars() -> list[Path]:
    """The jars that Spark's Kafka source needs beyond pyspark's own, for `spark.jars`.

    Raises:
        JarsError: the connector is not of pyspark's version, or a jar could not be had.
    """
    check_connector_version()
    return ensure("spark")


def store_jars(lake: str) -> list[Path]:
    """The jars that Spark needs for the files of a lake: none for one on a disk.

    Raises:
        JarsError: a jar could not be had.
    """
    scheme, separator, _ = lake.partition("://")
    return ensure(scheme) if separator and scheme in STORES else []


def kafka_classpath() -> list[Path]:
    """The class path of the Kafka broker.

    Raises:
        JarsError: a jar could not be had.
    """
    return ensure("kafka")


def connector_version() -> str:
    """The version of Spark's Kafka connector in the lock."""
    return next(jar.coordinate.split(":")[2] for jar in locked("spark") if f":{CONNECTOR}:" in jar.coordinate)


def check_connector_version() -> None:
    """Spark loads a connector of another version and fails in the middle of a query: compare before.

    Raises:
        JarsError: the connector is not of pyspark's version.
    """
    connector, pyspark = connector_version(), version("pyspark")
    if connector != pyspark:
        raise JarsError(
            f"expected {CONNECTOR} {pyspark} as pyspark is {pyspark}, found {connector} in the lock; "
            f"install pyspark=={connector}, or run `python -m antenna_assets.stack.jars --lock` "
            f"if that connector is published"
        )


def missing(name: str, lock: Path | None = None) -> list[Jar]:
    """The locked jars of a set that are absent or not what was locked."""
    folder = jars_home() / name
    return [jar for jar in locked(name, lock) if _sha256(folder / jar.name) != jar.sha256]


def ensure(name: str, say: Callable[[str], None] = lambda _: None, lock: Path | None = None) -> list[Path]:
    """The jars of one set (as `locked` names them), fetched first where they are missing or were changed.

    Raises:
        JarsError: a jar could not be fetched, or is not the one that was locked.
    """
    folder = jars_home() / name
    paths = [folder / jar.name for jar in locked(name, lock)]
    absent = missing(name, lock)
    if absent:
        _fetch(absent, folder, lambda count: say(f"{name} jars: {count} of {len(absent)}"))
        # A folder of jars gets globbed sooner or later: two versions of one library in it would mix.
        for stray in {*folder.glob("*.jar")} - {*paths}:
            stray.unlink(missing_ok=True)
    return paths


def _fetch(absent: list[Jar], folder: Path, say: Callable[[int], None]) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    repository = pooch.Pooch(
        path=folder,
        base_url=_repository(),
        registry={jar.name: f"sha256:{jar.sha256}" for jar in absent},
        urls={jar.name: f"{_repository()}/{jar.place}" for jar in absent},
        retry_if_failed=_RETRIES,
    )
    downloader = pooch.HTTPDownloader(timeout=_TIMEOUT_SECONDS)

    def fetch(jar: Jar) -> None:
        try:
            Path(repository.fetch(jar.name, downloader=downloader)).chmod(READABLE)
        except (ValueError, requests.RequestException) as error:  # another hash, or no answer
            raise JarsError(
                f"{jar.coordinate} could not be fetched: {error}; check the network, the proxy and "
                f"REQUESTS_CA_BUNDLE, then run the same again (what was fetched is kept)"
            ) from error

    try:
        program_folder(folder)
        with ThreadPoolExecutor(_PARALLEL) as pool:
            for count, _ in enumerate(pool.map(fetch, absent), start=1):
                if count % _SAY_EVERY == 0 or count == len(absent):
                    say(count)
    except OSError as error:
        raise JarsError(
            f"cannot write the jars to {folder}: {error}; use a virtual environment of your own"
        ) from error


def _repository() -> str:
    from jgo.constants import MAVEN_CENTRAL_URL

    return MAVEN_CENTRAL_URL


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def pyspark_jars() -> Path:
    """The jars that pyspark brings."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise JarsError("expected pyspark to be installed, found none; run `make setup`")
    return Path(spec.origin).with_name("jars")


def write_lock(lock: Path, sets: dict[str, list[Jar]]) -> None:
    """Rewrite a lock file with these sets."""
    import tomli_w

    rows = {name: {jar.coordinate: jar.sha256 for jar in jars} for name, jars in sets.items()}
    text = "# Written by `make lock`: the jars by coordinate and SHA-256.\n" + tomli_w.dumps(rows)
    replace_file(lock, text, READABLE)


def _beyond_pyspark(jars: list[Jar]) -> list[Jar]:
    """Those that pyspark does not bring itself, of whatever version."""
    shipped = {re.sub(r"-\d.*", "", path.name) for path in pyspark_jars().glob("*.jar")}
    return [jar for jar in jars if jar.coordinate.split(":")[1] not in shipped]


def resolve(*roots: str, alone: tuple[str, ...] = ()) -> list[Jar]:
    """The jars of the roots with all that they need, and those that are taken alone, as published now."""
    from jgo.maven import MavenContext

    def jar(dependency: Any) -> Jar:
        path = dependency.artifact.resolve()
        if path.suffix != ".jar" or dependency.classifier:
            raise JarsError(f"expected a plain jar, found {dependency}; the lock has no field for it yet")
        coordinate = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
        return Jar(coordinate, hashlib.sha256(path.read_bytes()).hexdigest())

    jars: dict[tuple[str, str], Jar] = {}
    # Never ~/.m2: a local repository may hold a pom without its jar, or half a jar.
    with tempfile.TemporaryDirectory() as folder:
        maven: Any = MavenContext(repo_cache=Path(folder), timeout=_TIMEOUT_SECONDS)
        # One by one, the first root's versions win: jgo takes all roots of one call for BOMs, and log4j's pom
        # then turned the broker's own kafka-clients 4.3.1 into 3.9.1.
        for root in roots:
            inputs, transitive = maven.resolver.resolve([maven.create_dependency(root)])
            for dependency in [*inputs, *transitive]:
                key = (dependency.groupId, dependency.artifactId)
                needed = dependency.scope in (None, "compile", "runtime") and not dependency.optional
                if needed and key not in jars:
                    jars[key] = jar(dependency)
        for coordinate in alone:
            dependency = maven.create_dependency(coordinate)
            jars[dependency.groupId, dependency.artifactId] = jar(dependency)
    return sorted(jars.values(), key=lambda jar: jar.coordinate)


def main(arguments: list[str]) -> int:
    """`python -m antenna_assets.stack.jars [--lock]`."""

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    try:
        if arguments == ["--lock"]:
            connector = f"org.apache.spark:{CONNECTOR}:{version('pyspark')}"
            sets = {
                "spark": _beyond_pyspark(resolve(connector)),
                "s3": _beyond_pyspark(resolve(*_S3_ROOTS, alone=_S3_ALONE)),
                "gs": resolve(alone=_GS_ALONE),
                "kafka": resolve(*_KAFKA_ROOTS),
            }
            write_lock(LOCK, sets)
            say(f"wrote {LOCK}")
        elif arguments:
            raise JarsError(f"expected nothing or --lock, found {' '.join(arguments)}")
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: ensure(name, say), ("spark", "kafka")))
        check_connector_version()
    except JarsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
