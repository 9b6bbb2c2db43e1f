"""docker/: what can be said of it without an engine."""

import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from antenna_assets.engines.spark_session import IMAGE
from antenna_assets_tests.containers.image import (
    IMAGES,
    PROFILES,
    compose,
    composed,
    copies,
    instructions,
    is_sent,
)
from antenna_assets_tests.containers.secured import CHECKOUT, DOCKER, make_secrets

JOBS = {"prepare", "superset-load"}


@pytest.fixture(params=PROFILES)
def services(request: pytest.FixtureRequest) -> dict[str, Any]:
    return composed(request.param)["services"]


def test_each_profile_has_the_whole_system_and_the_simulator_is_of_the_demo() -> None:
    always = {
        "kafka",
        "postgres",
        "stream",
        "code",
        "webserver",
        "daemon",
        "sweep",
        "alerts",
        "watch",
        "superset",
        *JOBS,
    }
    assert composed("demo")["services"].keys() == always | {"simulator"}
    assert composed("secure")["services"].keys() == always


def test_without_a_profile_nothing_starts_and_the_error_says_how_to_choose_one() -> None:
    run = compose("config", "--quiet")
    assert run.returncode != 0
    assert "choose --env-file docker/demo.env or docker/secure.env" in run.stderr


def test_the_profiles_differ_in_the_servers_rules_and_in_the_secrets() -> None:
    def sources(profile: str) -> set[str]:
        found = composed(profile)
        mounts = [mount for name in ("kafka", "postgres") for mount in found["services"][name]["volumes"]]
        return {mount["source"] for mount in mounts} | {found["secrets"]["ca"]["file"]}

    docker = str(DOCKER)
    assert {path.removeprefix(docker) for path in sources("demo") - sources("secure")} == {
        "/kafka/demo.properties",
        "/postgres/demo.hba",
        "/secrets/demo/ca",
    }
    assert {path.removeprefix(docker) for path in sources("secure") - sources("demo")} == {
        "/kafka/secure.properties",
        "/postgres/secure.hba",
        "/secrets/secure/ca",
    }


def test_nobody_is_root_and_nobody_can_become_it(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["user"].split(":")[0] not in ("", "0", "root"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert service.keys() & {"privileged", "cap_add", "network_mode", "pid"} == set(), name


def test_row_24_ports_are_published_on_127_0_0_1_only(services: dict[str, Any]) -> None:
    published = [
        (name, port["host_ip"], port["published"])
        for name, service in services.items()
        for port in service.get("ports", [])
    ]
    assert published == [("superset", "127.0.0.1", "8088"), ("webserver", "127.0.0.1", "3000")]


def test_what_runs_on_is_looked_after_and_what_comes_first_is_waited_for(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name in JOBS:
            assert service["restart"] == "no"
        else:
            assert service["healthcheck"]["test"][0] == "CMD", name
            assert service["restart"] == "unless-stopped", name
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in JOBS else "service_healthy"
            assert how["condition"] == expected, (name, other)
    assert {name for name, service in services.items() if not service.get("depends_on")} == {
        "kafka",
        "postgres",
    }


def test_images_are_pinned_by_version(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[a-z/-]+:\d+\.\d+(\.\d+)?", service["image"]), name
    for image in IMAGES:
        stages = [words for instruction, words in instructions(image) if instruction == "FROM"]
        named = {words[2] for words in stages if words[1:2] == ["AS"]}
        bases = [words[0] for words in stages if words[0] not in named]
        assert len(bases) == 2
        assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", base) for base in bases)


def test_what_is_built_without_a_target_is_what_compose_runs(services: dict[str, Any]) -> None:
    stages = [words[-1] for instruction, words in instructions("antenna") if instruction == "FROM"]
    assert stages == ["build", "build-spark", "run", "spark", "antenna"]
    ours = [one for one in services.values() if one["image"].startswith("antenna-lakehouse")]
    assert {(one["image"], one["build"]["target"]) for one in ours} == {
        ("antenna-lakehouse:0.1.0", "antenna")
    }


def test_what_runs_on_spark_is_of_the_image_that_has_it() -> None:
    usual, on_spark = (composed("secure", *more)["services"] for more in ((), ("compose.spark.yaml",)))
    changed = {name: one for name, one in on_spark.items() if one != usual[name]}
    assert {
        name: (one["image"], one["build"]["target"], engines_of(one)) for name, one in changed.items()
    } == {
        "stream": (f"{IMAGE}:0.1.0", "spark", {"ANTENNA_STREAM_ENGINE": "spark"}),
        "code": (f"{IMAGE}:0.1.0", "spark", {"ANTENNA_ENGINE": "spark"}),
    }


def engines_of(service: dict[str, Any]) -> dict[str, str]:
    return {name: text for name, text in service["environment"].items() if name.endswith("ENGINE")}


def test_kafka_and_superset_are_of_the_versions_that_the_tests_run(services: dict[str, Any]) -> None:
    from antenna_assets.stack.jars import locked

    assert services["kafka"]["image"].partition(":")[2] in {
        jar.coordinate.split(":")[2] for jar in locked("kafka") if ":kafka_2.13:" in jar.coordinate
    }
    superset = services["superset"]["image"].partition(":")[2]
    assert f"apache-superset=={superset}\n" in (DOCKER / "superset" / "requirements.in").read_text()


def test_no_secret_is_in_an_environment_a_command_or_an_image(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for variable, text in service.get("environment", {}).items():
            assert "://" not in text, (name, variable)
            if re.search("PASSWORD|SECRET|TOKEN|KEY", variable):
                assert variable.endswith("_FILE"), (name, variable)
                assert text.startswith("/run/secrets/"), (name, variable)
        assert "password" not in " ".join(
            [*(service.get("command") or []), *(service.get("entrypoint") or [])]
        )
    for path in (
        "docker/secrets/secure/ca_key",
        ".venv/bin/python",
        ".antenna/x",
        "docker/secure.env",
        ".git/config",
    ):
        assert not is_sent(path), path


def test_each_part_is_given_the_logins_of_its_own_role(services: dict[str, Any]) -> None:
    def logins(name: str) -> set[str]:
        sources = {secret["source"] for secret in services[name]["secrets"]}
        return {source for source in sources if source.startswith(("postgres_", "kafka_", "password_"))}

    assert logins("stream") == {"postgres_stream", "kafka_stream"}
    assert {*logins("code"), *logins("webserver"), *logins("daemon")} == {"postgres_publisher"}
    assert logins("sweep") == {"postgres_administrator"}
    assert logins("alerts") == {"postgres_alerts"}
    assert logins("watch") == {"postgres_watch"}
    assert logins("superset") == {"postgres_superset", "postgres_dashboards"}
    if "simulator" in services:
        assert logins("simulator") == {"kafka_simulator"}
    given_the_owner = {name for name in services if {"postgres_antenna", "password_antenna"} & logins(name)}
    assert given_the_owner == {"prepare", "postgres"}


def test_the_watch_over_alerts_cannot_change_the_lake(services: dict[str, Any]) -> None:
    mounts = {name: {mount["target"]: mount.get("read_only", False) for mount in services[name]["volumes"]}
              for name in ("stream", "watch")}  # fmt: skip
    assert mounts == {"stream": {"/var/lib/antenna": False}, "watch": {"/var/lib/antenna": True}}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_secret_is_made_closed_to_others_and_kept_the_next_time(profile: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make_secrets(first, profile)
    files = {path.name: path.read_text() for path in first.iterdir()}
    assert composed(profile)["secrets"].keys() <= files.keys()
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert {stat.S_IMODE((first / name).stat().st_mode) for name in composed(profile)["secrets"]} == {0o444}
    make_secrets(first, profile)
    assert {path.name: path.read_text() for path in first.iterdir()} == files
    make_secrets(second, profile)
    assert [
        name for name, text in files.items() if "password_" in name and (second / name).read_text() == text
    ] == []


def test_row_24_a_short_or_default_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "password_stream").write_text("changeme\n")
    command = (sys.executable, str(DOCKER / "make_secrets.py"), "demo", "--folder", str(tmp_path))
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "password_stream: expected 32 or more random characters" in run.stderr


def test_the_folder_of_secrets_is_not_kept_in_git() -> None:
    run = subprocess.run(("git", "check-ignore", "docker/secrets/demo/ca"), cwd=CHECKOUT, check=False)
    assert run.returncode == 0


@pytest.mark.parametrize("image", IMAGES)
def test_a_dockerfile_is_as_the_linter_wants_it_and_ends_as_a_user(image: str) -> None:
    program = str(Path(sys.executable).with_name("hadolint"))
    run = subprocess.run(
        (program, str(DOCKER / image / "Dockerfile")), capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    users = [words[0] for instruction, words in instructions(image) if instruction == "USER"]
    assert len(users) == 1
    assert users[0] in {service.get("user") for service in composed("demo")["services"].values()}


@pytest.mark.parametrize("image", IMAGES)
def test_what_a_dockerfile_copies_is_there_and_is_sent(image: str) -> None:
    for sources, _target in copies(image):
        for source in sources:
            assert (CHECKOUT / source).exists(), source
            assert is_sent(source), source
