"""The jars of Spark's Kafka connector and of its object stores, of the Kafka broker, and of Flink, which the benchmarks
compare with.

Locked by SHA-256, fetched once, checked at each use.

Nothing here runs Java. Which Java runs them is `java`, how the broker is started is `kafka`.
"""

import hashlib
import json
import platform
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
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

# The broker's slf4j-api is 1.7, whose binding is log4j-slf4j-impl; its version is that of the broker's log4j-core.
_KAFKA_ROOTS = ("org.apache.kafka:kafka_2.13:4.3.1", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")
# Hadoop's version is that of the hadoop-client in pyspark, the SDK's that of hadoop-aws. Hadoop itself asks for the SDK's
# bundle of all services, which is 700 MB; what S3A uses of it is in these modules.
_S3_ROOTS = ("software.amazon.awssdk:s3:2.35.4", "software.amazon.awssdk:sts:2.35.4")
# Without what their poms ask for: the bundle, a version that is no number, and a client in native code.
_S3_ALONE = (
    "org.apache.hadoop:hadoop-aws:3.5.0",
    "software.amazon.awssdk:s3-transfer-manager:2.35.4",
    "software.amazon.s3.analyticsaccelerator:analyticsaccelerator-s3:1.3.1",
)
# Of the same Hadoop; all that it needs is in it.
_GS_ALONE = ("org.apache.hadoop:hadoop-gcp:3.5.0",)
# Of the version of apache-flink in benchmarks/peers; the connector's name ends with the oldest Flink that it fits.
_FLINK_ROOTS = (
    "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",
    "org.apache.flink:flink-sql-parquet:2.3.0",
    "commons-logging:commons-logging:1.3.5",
)
# PostgreSQL with TLS, which the embedded one lacks: for tests, each the archive of one kind of machine.
_POSTGRES = "io.zonky.test.postgres:embedded-postgres-binaries-{}:18.6.0"
_POSTGRES_MACHINES = ("linux-amd64", "linux-arm64v8", "darwin-amd64", "darwin-arm64v8")
_ATTEMPTS = 3
_PARALLEL = 8
_SAY_EVERY = 10
_TIMEOUT_SECONDS = 60


class JarsError(AntennaError):
    """The jars are not what they should be; the message says which and what to do."""


@dataclass(frozen=True)
class Jar:
    """One locked jar: Maven coordinate `group:artifact:version`, SHA-256 and size in bytes."""

    coordinate: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        _, artifact, jar_version = self.coordinate.split(":")
        return f"{artifact}-{jar_version}.jar"


def jars_home() -> Path:
    """Where the jars of this Python environment are kept, in one folder per set."""
    return Path(sys.prefix) / "share" / "antenna" / "jars"


def locked(name: str) -> list[Jar]:
    """The jars of one set (`spark`, `s3`, `gs`, `kafka`, `flink`, `postgres-<machine>`) in the lock file, in its order."""
    with LOCK.open("rb") as file:
        return [Jar(**row) for row in tomllib.load(file)[name]]


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


def flink_classpath() -> list[Path]:
    """What Flink's Kafka source and parquet sink need beyond its own jars; Hadoop's client is pyspark's.

    Raises:
        JarsError: a jar could not be had.
    """
    return ensure("flink") + sorted(_pyspark_folder().glob("hadoop-client-*.jar"))


def postgres_archive() -> Path:
    """PostgreSQL's programs with TLS for this machine: a jar with a compressed tar archive in it.

    Raises:
        JarsError: it could not be had, or there is none for this machine.
    """
    processor = {"x86_64": "amd64", "aarch64": "arm64v8", "arm64": "arm64v8"}.get(platform.machine())
    machine = f"{sys.platform}-{processor}"
    if machine not in _POSTGRES_MACHINES:
        raise JarsError(f"expected one of the machines {', '.join(_POSTGRES_MACHINES)}, found {machine}")
    return ensure(f"postgres-{machine}")[0]


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


def missing(name: str) -> list[Jar]:
    """The locked jars of a set that are absent or not what was locked.

    A jar is hashed only if its size or its time differ from those that its last check noted in the stamp.
    """
    folder = jars_home() / name
    stamps = _stamps(folder)
    absent, changed = [], False
    for jar in locked(name):
        path = folder / jar.name
        stamp = _stamp(path, jar)
        if stamp is not None and stamp == stamps.get(jar.name):
            continue
        if stamp is None or path.stat().st_size != jar.size or _sha256(path) != jar.sha256:
            absent.append(jar)
        else:
            stamps[jar.name], changed = stamp, True
    if changed:
        replace_file(folder / "stamps.json", json.dumps(stamps, indent=0), READABLE)
    return absent


def ensure(name: str, say: Callable[[str], None] = lambda _: None) -> list[Path]:
    """The jars of one set (as `locked` names them), fetched first where they are missing or were changed.

    Raises:
        JarsError: a jar could not be fetched, or is not the one that was locked.
    """
    folder = jars_home() / name
    absent = missing(name)
    if absent:
        _fetch_all(absent, folder, name, say)
        missing(name)  # stamps them
        # A folder of jars gets globbed sooner or later: two versions of one library in it would mix.
        for stray in {*folder.glob("*.jar")} - {folder / jar.name for jar in locked(name)}:
            stray.unlink(missing_ok=True)
    return [folder / jar.name for jar in locked(name)]


def _fetch_all(absent: list[Jar], folder: Path, name: str, say: Callable[[str], None]) -> None:
    total, done = sum(jar.size for jar in absent), 0
    try:
        program_folder(folder)
        with (
            tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as work,
            ThreadPoolExecutor(_PARALLEL) as pool,
        ):
            fetched = {pool.submit(_fetch, jar, folder, Path(work)): jar for jar in absent}
            for count, future in enumerate(as_completed(fetched), 1):
                try:
                    future.result()
                except JarsError:
                    pool.shutdown(cancel_futures=True)
                    raise
                done += fetched[future].size
                if count % _SAY_EVERY == 0 or count == len(absent):
                    say(f"{name} jars: {count} of {len(absent)}, {done / 1e6:.0f} of {total / 1e6:.0f} MB")
    except OSError as error:
        raise JarsError(
            f"cannot write the jars to {folder}: {error}; use a virtual environment of your own"
        ) from error


def _fetch(jar: Jar, folder: Path, work: Path) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            # A repository of its own for each attempt: jgo takes whatever file it finds there for the jar.
            with tempfile.TemporaryDirectory(dir=work) as repository:
                path = _download(jar.coordinate, Path(repository))
                found = _sha256(path)
                if found == jar.sha256:
                    path.chmod(READABLE)
                    path.replace(folder / jar.name)
                    return
            problem = f"its SHA-256 is {found}, expected {jar.sha256}"
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors, jgo's are RuntimeErrors
            problem = str(error)
        if attempt < _ATTEMPTS:
            time.sleep(attempt)
    raise JarsError(
        f"{jar.coordinate} could not be fetched: {problem}; check the network, the proxy and REQUESTS_CA_BUNDLE, "
        f"then run `python -m antenna_assets.stack.jars` again (what was fetched is kept)"
    )


def _download(coordinate: str, repository: Path) -> Path:
    return _maven(repository).create_dependency(coordinate).artifact.resolve()


def _maven(repository: Path) -> Any:
    from jgo.maven import MavenContext

    # Never ~/.m2: a local repository may hold a pom without its jar, or half a jar.
    return MavenContext(repo_cache=repository, timeout=_TIMEOUT_SECONDS)


def _stamps(folder: Path) -> dict[str, list[Any]]:
    try:
        stamps = json.loads((folder / "stamps.json").read_text())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def _stamp(path: Path, jar: Jar) -> list[Any] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, jar.sha256]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pyspark_folder() -> Path:
    """The jars that pyspark brings."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise JarsError("expected pyspark to be installed, found none; run `make setup`")
    return Path(spec.origin).with_name("jars")


def lock(repository: Path) -> None:
    """Resolve all sets again, in a Maven repository of our own, and rewrite the lock file."""
    import tomli_w

    connector = (f"org.apache.spark:{CONNECTOR}:{version('pyspark')}",)
    sets = {
        "spark": _beyond_pyspark(_resolve(connector, repository)),
        "s3": _beyond_pyspark(_resolve(_S3_ROOTS, repository, alone=_S3_ALONE)),
        "gs": _resolve((), repository, alone=_GS_ALONE),
        "kafka": _resolve(_KAFKA_ROOTS, repository),
        "flink": _resolve(_FLINK_ROOTS, repository),
        **{
            f"postgres-{machine}": _resolve((_POSTGRES.format(machine),), repository)
            for machine in _POSTGRES_MACHINES
        },
    }
    rows = {name: [vars(jar) for jar in jars] for name, jars in sets.items()}
    replace_file(
        LOCK,
        "# Written by `make lock`: the jars by coordinate and SHA-256.\n" + tomli_w.dumps(rows),
        READABLE,
    )


def _beyond_pyspark(jars: list[Jar]) -> list[Jar]:
    """Those that pyspark does not bring itself, of whatever version."""
    shipped = {re.sub(r"-\d.*", "", path.name) for path in _pyspark_folder().glob("*.jar")}
    return [jar for jar in jars if jar.coordinate.split(":")[1] not in shipped]


def _resolve(roots: tuple[str, ...], repository: Path, alone: tuple[str, ...] = ()) -> list[Jar]:
    """The jars of the roots with all that they need, and those that are taken alone."""
    maven = _maven(repository)
    jars: dict[tuple[str, str], Jar] = {}
    # One by one, the first root's versions win: jgo takes all roots of one call for BOMs, and log4j's pom then
    # turned the broker's own kafka-clients 4.3.1 into 3.9.1.
    for root in roots:
        inputs, transitive = maven.resolver.resolve([maven.create_dependency(root)])
        for dependency in [*inputs, *transitive]:
            key = (dependency.groupId, dependency.artifactId)
            if key in jars or dependency.scope not in (None, "compile", "runtime") or dependency.optional:
                continue
            path = dependency.artifact.resolve()
            if path.suffix != ".jar" or dependency.classifier:
                raise JarsError(f"expected a plain jar, found {dependency}; the lock has no field for it yet")
            jars[key] = Jar(":".join((*key, dependency.version)), _sha256(path), path.stat().st_size)
    for coordinate in alone:
        group, artifact, _ = coordinate.split(":")
        path = _download(coordinate, repository)
        jars[(group, artifact)] = Jar(coordinate, _sha256(path), path.stat().st_size)
    return sorted(jars.values(), key=lambda jar: jar.coordinate)


def main(arguments: list[str]) -> int:
    """`python -m antenna_assets.stack.jars [--lock]`."""
    end = "\r" if sys.stdout.isatty() else "\n"

    def say(text: str) -> None:
        sys.stdout.write(f"{text}{end}")
        sys.stdout.flush()

    try:
        if arguments == ["--lock"]:
            with tempfile.TemporaryDirectory() as repository:
                lock(Path(repository))
            say(f"wrote {LOCK}")
        elif arguments:
            raise JarsError(f"expected nothing or --lock, found {' '.join(arguments)}")
        for name in ("spark", "kafka"):
            ensure(name, say)
        check_connector_version()
    except JarsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if end == "\r":
        sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
