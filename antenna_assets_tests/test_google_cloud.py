"""docker/google-cloud/: what the manifests and Helm values say about this program is so."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from antenna_assets.cli import app
from antenna_assets.operations.alerts.channels import WebhookChannel, read_channels
from antenna_assets.settings import PREFIX, Settings
from antenna_assets.storage.project_files import docker_folder, workspace_file

FOLDER = docker_folder() / "google-cloud"
GUIDE = docker_folder().parent / "docs" / "google-cloud.md"
MANIFESTS = sorted((FOLDER / "kubernetes").glob("*.yaml"))
# The Kafka clients' file.
KAFKA_CONFIG = "ANTENNA_KAFKA_CONFIG"


def objects() -> list[dict[str, Any]]:
    found = []
    for path in MANIFESTS:
        found += list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return found


def values() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "dagster-values.yaml").read_text(encoding="utf-8"))


def deployments() -> list[dict[str, Any]]:
    return values()["dagster-user-deployments"]["deployments"]


def pods() -> dict[str, dict[str, Any]]:
    """The pods' specifications, by the file that has them."""
    found = {}
    for path in MANIFESTS:
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            spec = one.get("spec", {})
            spec = spec.get("jobTemplate", {}).get("spec", spec)
            if "template" in spec:
                found[path.stem] = spec["template"]["spec"]
    return found


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    else:
        yield str(value)


def test_every_command_of_a_pod_is_one_of_antenna() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    asked = {}
    for name, pod in pods().items():
        (container,) = pod["containers"]
        program, command, *options = container["args"]
        assert program == "antenna"
        known = {option for parameter in commands[command].params for option in parameter.opts}
        assert {option for option in options if option.startswith("--")} <= known
        asked[name] = command
    assert asked == {
        "alerts": "alerts",
        "metrics": "metrics",
        "migrate": "up",
        "stream": "stream",
        "sweep": "sweep",
        "verify": "verify",
        "watch": "alerts",
    }


def test_every_setting_is_known_and_none_is_a_secret() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {KAFKA_CONFIG}
    given = {text for text in texts([*objects(), values()]) if text.startswith(PREFIX)}
    assert given >= {"ANTENNA_HOME", "ANTENNA_LAKE", "ANTENNA_KAFKA_BOOTSTRAP"}
    assert given <= known
    # The database's address has a password: it comes from a secret, whole.
    assert "ANTENNA_POSTGRES_URL" not in given
    assert [one for one in objects() if one["kind"] == "Secret"] == []
    assert not any("postgresql://" in text for text in texts([*objects(), values()]))


def test_what_a_pod_refers_to_is_there_or_made_by_hand_in_the_guide() -> None:
    made = {(one["kind"], one["metadata"].get("name")) for one in objects()}
    parts = GUIDE.read_text(encoding="utf-8").partition("for part in ")[2].partition(";")[0].split()
    for pod in pods().values():
        assert ("ServiceAccount", pod["serviceAccountName"]) in made
        mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        for source in pod["containers"][0]["envFrom"]:
            if "configMapRef" in source:
                assert ("ConfigMap", source["configMapRef"]["name"]) in made
            else:
                assert source["secretRef"]["name"].removeprefix("antenna-") in parts


def test_one_stream_runs_at_a_time_and_has_time_to_stop() -> None:
    (stream,) = [
        one
        for one in objects()
        if (one["kind"], one["metadata"].get("name")) == ("Deployment", "antenna-stream")
    ]
    assert (stream["spec"]["replicas"], stream["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert stream["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


def test_no_pod_runs_as_root_and_none_of_ours_has_a_token_of_the_cluster() -> None:
    for pod in pods().values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        confined = pod["containers"][0]["securityContext"]
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["capabilities"] == {"drop": ["ALL"]}
    for part in (values()["dagsterWebserver"], values()["dagsterDaemon"], *deployments()):
        assert part["podSecurityContext"]["runAsNonRoot"] is True
        assert part["securityContext"]["allowPrivilegeEscalation"] is False


def test_all_parts_are_of_one_image() -> None:
    images = {pod["containers"][0]["image"] for pod in pods().values()}
    for part in (values()["dagsterWebserver"], values()["dagsterDaemon"], *deployments()):
        images.add(f"{part['image']['repository']}:{part['image']['tag']}")
    assert images == {"REGION-docker.pkg.dev/PROJECT/antenna/antenna:VERSION"}


def test_the_code_location_is_that_of_the_workspace() -> None:
    (ours,) = yaml.safe_load(workspace_file().read_text(encoding="utf-8"))["load_from"]
    (deployment,) = deployments()
    assert deployment["dagsterApiGrpcArgs"] == ["--module-name", ours["python_module"]["module_name"]]
    assert values()["dagsterWebserver"]["workspace"]["servers"] == [
        {
            "host": deployment["name"],
            "port": deployment["port"],
            "name": ours["python_module"]["location_name"],
        }
    ]


def test_dagsters_instance_is_that_of_one_machine() -> None:
    ours = yaml.safe_load((docker_folder() / "dagster.yaml").read_text(encoding="utf-8"))
    chart = values()
    launcher = chart["runLauncher"]["config"]["customRunLauncher"]
    assert {name: launcher[name] for name in ("module", "class")} == ours["run_launcher"]
    assert getattr(importlib.import_module(launcher["module"]), launcher["class"])
    assert chart["concurrency"] == {"enabled": True, **camel(ours["concurrency"])}
    assert chart["dagsterDaemon"]["runMonitoring"] == camel(ours["run_monitoring"])
    assert chart["dagsterDaemon"]["runRetries"] == camel(ours["run_retries"])
    assert chart["retention"]["sensor"]["purgeAfterDays"] == ours["retention"]["sensor"]["purge_after_days"]
    assert chart["telemetry"] == ours["telemetry"]
    assert chart["postgresql"]["postgresqlParams"]["options"] == "-c search_path=dagster"


def test_row_38_metrics_are_read_by_an_account_and_a_login_that_can_change_nothing() -> None:
    (container,) = pods()["metrics"]["containers"]
    assert pods()["metrics"]["serviceAccountName"] == "antenna-metrics"
    assert [one["secretRef"]["name"] for one in container["envFrom"] if "secretRef" in one] == [
        "antenna-metrics"
    ]
    lake = (FOLDER / "terraform" / "identities.tf").read_text(encoding="utf-8")
    assert "antenna-metrics" not in lake


def test_the_watch_reads_the_lake_and_cannot_change_it() -> None:
    pod = pods()["watch"]
    assert pod["serviceAccountName"] == "antenna-watch"
    assert pod["containers"][0]["args"] == ["antenna", "alerts", "watch"]
    text = (FOLDER / "terraform" / "identities.tf").read_text(encoding="utf-8")
    (given,) = [one for one in text.split("\nresource ") if "/antenna-watch" in one]
    assert given.startswith('"google_storage_bucket_iam_member"')
    assert '"roles/storage.objectViewer"' in given


def test_the_channels_of_the_deployment_are_valid_and_name_the_secret_that_is_mounted(tmp_path: Path) -> None:
    (channels,) = [one for one in objects() if one["metadata"].get("name") == "antenna-channels"]
    (tmp_path / "alerts.toml").write_text(channels["data"]["alerts.toml"])
    read = read_channels(Settings(alert_channels=tmp_path / "alerts.toml"))
    pod = pods()["alerts"]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "webhook"]
    assert [str(one.secret_file) for one in read.values() if isinstance(one, WebhookChannel)] == [
        f"{mount['mountPath']}/secret"
    ]
    assert {volume["name"]: volume.get("secret", {}).get("defaultMode") for volume in pod["volumes"]}[
        "webhook"
    ] == 0o440


def test_row_38_dagsters_pods_are_reached_by_those_alone_that_need_them() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in objects() if one["kind"] == "NetworkPolicy"}
    entered = {
        name: (
            spec["podSelector"]["matchLabels"],
            [
                (sorted(str(peer) for peer in rule["from"]), [port["port"] for port in rule["ports"]])
                for rule in spec["ingress"]
            ],
        )
        for name, spec in policies.items()
        if name.startswith("dagster-")
    }
    # The labels are those of the chart's templates.
    of = {name: str({"podSelector": {"matchLabels": {"component": name}}}) for name in (
        "dagster-proxy", "dagster-webserver", "dagster-daemon",
    )}  # fmt: skip
    (deployment,) = deployments()
    assert entered == {
        "dagster-webserver": (
            {"component": "dagster-webserver"},
            [([of["dagster-proxy"]], [values()["dagsterWebserver"]["service"]["port"]])],
        ),
        "dagster-code-location": (
            {"component": "user-deployments"},
            [([of["dagster-daemon"], of["dagster-webserver"]], [deployment["port"]])],
        ),
        "dagster-daemon": ({"component": "dagster-daemon"}, []),
    }
    assert all(spec["policyTypes"] == ["Ingress"] for spec in policies.values())


def test_row_40_no_pod_of_ours_is_given_the_names_of_the_services_around() -> None:
    assert {name for name, pod in pods().items() if pod.get("enableServiceLinks") is not False} == set()


def camel(value: Any) -> Any:
    """As the chart spells it: `max_retries` is `maxRetries` there."""
    if not isinstance(value, dict):
        return value
    return {
        (words := key.split("_"))[0] + "".join(word.capitalize() for word in words[1:]): camel(inner)
        for key, inner in value.items()
    }


@pytest.mark.parametrize("path", sorted((FOLDER / "terraform").glob("*.tf")), ids=lambda path: path.name)
def test_terraform_holds_no_password_and_makes_no_key(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for word in ("password =", "google_service_account_key", "secret_data", "random_password"):
        assert word not in text
