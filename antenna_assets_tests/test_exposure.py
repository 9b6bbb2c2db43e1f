"""proofs.md, row 38: no secret and no e-mail is in anything that Dagster stores, shows, logs or passes on in a command line.

The secrets are given a core of letters and digits that no form of writing them changes: as it is, percent-encoded, in a DSN,
as a Python or JSON text.
"""

import json
import re
import sys
import traceback
import urllib.request
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import dagster as dg
import psycopg
import pytest
from dagster._utils.error import serializable_error_info_from_exc_info
from psycopg import sql

from antenna_assets.clients.postgres import connect, dagster_url
from antenna_assets.definitions import build_definitions
from antenna_assets.domain.hours import hour_key
from antenna_assets.settings import Settings, SettingsError, load_settings
from antenna_assets.storage.project_files import docker_folder, workspace_file
from antenna_assets_tests.certified import FIRST, Land
from antenna_assets_tests.faults.dagster_daemon import Dagster, dagster, wait_for
from antenna_assets_tests.free_ports import free_port
from antenna_assets_tests.local_runs import tick

pytestmark = pytest.mark.services

CORE = "kQ7coreOfAllSecrets9Z"
PASSWORD = f"p@ss/w:rd %25\"'\\é?#{CORE}"
ANOTHER = f"another-{CORE}"

EVERYTHING = """{
  instance { info executablePath runLauncher { name } runQueueConfig { tagConcurrencyLimitsYaml }
    daemonHealth { allDaemonStatuses { daemonType lastHeartbeatErrors { message stack causes { message } } } } }
  version
  workspaceOrError { ... on Workspace { locationEntries { name displayMetadata { key value } locationOrLoadError {
    ... on RepositoryLocation { environmentPath dagsterLibraryVersions { name version }
      repositories {
        displayMetadata { key value }
        allTopLevelResourceDetails { name description resourceType configFields { name description defaultValueAsJson }
          configuredValues { key value type } }
        jobs { name description tags { key value } metadataEntries { label description }
          modes { resources { name description configField { defaultValueAsJson configType { key } } } }
          runs(limit: 9) { runId runConfigYaml tags { key value } pipelineSnapshotId
            eventConnection(limit: 9000) { events { ... on MessageEvent { message eventType }
              ... on MaterializationEvent { metadataEntries { label description
                ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr } ... on JsonMetadataEntry { jsonString }
                ... on PathMetadataEntry { path } ... on UrlMetadataEntry { url } ... on PythonArtifactMetadataEntry { name } } }
              ... on ExecutionStepFailureEvent { error { message stack causes { message } } } } } } }
        sensors { name description metadata { assetKeys { path } } sensorState { ticks(limit: 9) {
          status error { message stack causes { message stack } } } } }
        assetManifest assetNodes { assetKey { path } description configField { defaultValueAsJson } metadataEntries { label description
          ... on TextMetadataEntry { text } ... on PathMetadataEntry { path } ... on UrlMetadataEntry { url } }
          requiredResources { resourceKey } }
      } } ... on PythonError { message stack } } } } }
}"""
SNAPSHOT = """query Snapshot($id: String!) { pipelineSnapshotOrError(snapshotId: $id) { ... on PipelineSnapshot { name
  modes { resources { name description configField { name defaultValueAsJson configType { key description recursiveConfigTypes {
    key description ... on CompositeConfigType { fields { name defaultValueAsJson } } } } } } } } ... on PythonError { message stack } } }"""
RESOURCE = """query Resource($selector: ResourceSelector!) { topLevelResourceDetailsOrError(resourceSelector: $selector) {
  __typename ... on ResourceDetails { name configFields { name defaultValueAsJson } configuredValues { key value type } } } }"""


def marks() -> list[str]:
    """What no place may hold: the secrets' core, and what any of the secrets begins with if it is encoded as a whole."""
    encoded = [b64encode(secret.encode()).decode()[:20] for secret in (PASSWORD, ANOTHER)]
    return [CORE, *encoded]


def readable(value: object) -> str:
    """A stored value as text; Dagster keeps its snapshots compressed."""
    if isinstance(value, bytes | memoryview):
        held = bytes(value)
        with suppress(zlib.error):
            held = zlib.decompress(held)
        return held.decode("utf-8", errors="replace")
    return str(value)


def stored(connection: psycopg.Connection) -> dict[str, str]:
    """All rows of all tables of Dagster."""
    tables = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'dagster'"
    ).fetchall()
    assert len(tables) > 20
    found = {}
    for (table,) in tables:
        rows = connection.execute(sql.SQL("SELECT * FROM dagster.{}").format(sql.Identifier(table)))
        found[f"table {table}"] = "\n".join(readable(value) for row in rows.fetchall() for value in row)
    return found


def files(folder: Path) -> dict[str, str]:
    """All files below a folder: compute logs, the daemon's and the web server's own."""
    return {
        f"file {path.relative_to(folder)}": readable(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def asked(address: str, query: str, variables: dict[str, object] | None = None) -> str:
    body = json.dumps({"query": query, "variables": variables or {}}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
    assert "errors" not in json.loads(text), text[:2000]
    return json.dumps(json.loads(text), ensure_ascii=False)


def holding(places: dict[str, str], words: list[str]) -> dict[str, str]:
    """The places that hold one of the words, with what is around it."""
    found = {}
    for place, text in places.items():
        for word in words:
            if (at := text.find(word)) >= 0:
                found[place] = text[max(at - 60, 0) : at + 40]
    return found


@pytest.fixture
def secret_url(postgres_url: str, connection: psycopg.Connection) -> Iterator[str]:
    """Address of the test's database for a login whose password has every character that is written in more than one way."""
    name = "login_of_exposure"
    connection.execute(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE antenna_publisher").format(
            sql.Identifier(name), sql.Literal(PASSWORD)
        )
    )
    parts = urlsplit(postgres_url)
    place = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(netloc=f"{name}:{quote(PASSWORD, safe='')}@{place}"))
    with connect(postgres_url) as owner:
        owner.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def world(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret_url: str, connection: psycopg.Connection
) -> Settings:
    """An hour to publish, and secrets wherever the settings and the clouds' own variables take one."""
    Land(connection, tmp_path / "lake", seed=8)({FIRST: 60}, newest=FIRST.replace(minute=59))
    connection.execute("UPDATE ledger.hour SET closed_at = now(), closed_by = 'clock'")
    kafka_config = tmp_path / "client.properties"
    kafka_config.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=org.apache.kafka.common.security.plain."
        f'PlainLoginModule required username="antenna" password="{ANOTHER}";\n'
    )
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANTENNA_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", secret_url)
    monkeypatch.setenv("ANTENNA_KAFKA_BOOTSTRAP", "127.0.0.1:9")
    monkeypatch.setenv("ANTENNA_KAFKA_CONFIG", str(kafka_config))
    monkeypatch.setenv("ANTENNA_SPARK_REMOTE", f"sc://127.0.0.1:9/;token={ANOTHER}")
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, ANOTHER)
    return load_settings()


def webserver(on: Dagster) -> str:
    port = free_port()
    on.run(
        str(Path(sys.executable).with_name("dagster-webserver")),
        *("--host", "127.0.0.1", "--port", str(port), "--workspace", str(workspace_file())),
    )
    return f"http://127.0.0.1:{port}"


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/server_info", timeout=5).close()
    except OSError:
        return False
    return True


def test_row_38_no_place_of_dagster_holds_a_secret_or_an_e_mail(
    world: Settings, connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: dict[str, str] = {}
    with dagster(world, tmp_path / "dagster", show_log=False) as on:
        on.start()
        address = webserver(on)
        wait_for(lambda: "SUCCESS" in on.runs().values(), 300)
        wait_for(lambda: answers(address), 180)
        for pid, command in on.processes().items():
            places[f"command line of {pid}"] = "\0".join(command)
        places |= failures_stored(on, world, monkeypatch)
        places["GraphQL, everything"] = asked(address, EVERYTHING)
        for (id_,) in connection.execute(
            "SELECT snapshot_id FROM dagster.snapshots WHERE snapshot_type = 'PIPELINE'"
        ).fetchall():
            places[f"GraphQL, snapshot {id_}"] = asked(address, SNAPSHOT, {"id": id_})
        for name in ("postgres", "lake", "engine"):
            selector = {
                "repositoryLocationName": "antenna_assets",
                "repositoryName": "__repository__",
                "resourceName": name,
            }
            answer = asked(address, RESOURCE, {"selector": selector})
            assert '"ResourceDetails"' in answer
            places[f"GraphQL, resource {name}"] = answer
        places |= stored(connection)
        places["said by `dagster instance info`"] = said_by(on, "instance", "info")
    places |= files(tmp_path / "dagster")
    assert holding(places, marks()) == {}
    e_mails = [email for (email,) in connection.execute("SELECT email FROM user_metadata").fetchall()]
    assert len(e_mails) == 20
    assert holding(places, e_mails) == {}
    # They were looked at where they would be: the run, its errors and the snapshot of its job are there.
    assert "login_of_exposure" in places["table event_logs"]
    assert "hourly_usage" in places["table snapshots"]
    assert "PostgresResource" in places["GraphQL, everything"]


def said_by(on: Dagster, *arguments: str) -> str:
    before = (on.home / "log").stat().st_size
    assert on.run(str(Path(sys.executable).with_name("dagster")), *arguments).wait(180) == 0
    said = (on.home / "log").read_bytes()[before:].decode()
    assert "Instance configuration" in said
    return said


def unreachable(url: str) -> dict[str, str]:
    """Addresses that cannot work, each in another way, with a secret in them."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return {
        "a wrong password": urlunsplit(parts._replace(netloc=f"login_of_exposure:{ANOTHER}@{place}")),
        "a wrong host": urlunsplit(parts._replace(netloc=f"someone:{ANOTHER}@127.0.0.1:9")),
        "a percent sign alone": urlunsplit(parts._replace(netloc=f"someone:%zz{ANOTHER}@{place}")),
        "an at sign in the password": urlunsplit(parts._replace(netloc=f"someone:p@{ANOTHER}@{place}")),
        "a slash in the password": f"postgresql://someone:{ANOTHER}/p@{place}{parts.path}",
        "a question mark in the password": f"postgresql://someone:{ANOTHER}?p@{place}{parts.path}",
        "no port": urlunsplit(parts._replace(netloc=f"someone:{ANOTHER}@127.0.0.1:port")),
        "an option that libpq does not know": f"{url}?secret={ANOTHER}",
        "no address": f"someone {ANOTHER}",
    }


@contextmanager
def opened_instance() -> Iterator[dg.DagsterInstance]:
    """The instance of DAGSTER_HOME, whose connections are closed at the end of the block."""
    with dg.DagsterInstance.get() as instance:
        yield instance
        for storage in (instance._run_storage, instance._event_storage, instance._schedule_storage):
            storage._engine.dispose()  # type: ignore[union-attr]


def failures_stored(on: Dagster, world: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Runs that cannot reach the database leave their errors in Dagster's storage; and what ticks would leave there."""
    ticks = {}
    monkeypatch.setenv("DAGSTER_HOME", str(on.home))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", on.environment["DAGSTER_POSTGRES_URL"])
    with opened_instance() as instance:
        for what, url in unreachable(world.postgres_url or "").items():
            monkeypatch.setenv("ANTENNA_POSTGRES_URL", url)
            job = build_definitions().resolve_job_def("hourly_usage")
            result = job.execute_in_process(
                instance=instance, tags={"dagster/partition": hour_key(FIRST)}, raise_on_error=False
            )
            assert not result.success, what
            try:
                tick(instance)
            except Exception:
                told = serializable_error_info_from_exc_info(sys.exc_info())
                ticks[f"tick with {what}"] = dg.serialize_value(told)
    assert len(ticks) == 9
    return ticks


@pytest.mark.parametrize(
    "lake", [f"s3://an-id:{CORE}@bucket/lake", f"gs://bucket/lake?token={CORE}", f"s3://a:b/{CORE}@bucket"]
)
def test_row_38_a_lakes_place_with_a_login_in_it_is_refused_as_it_is_shown_everywhere(
    monkeypatch: pytest.MonkeyPatch, lake: str
) -> None:
    monkeypatch.setenv("ANTENNA_LAKE", lake)
    with pytest.raises(SettingsError, match="without a login or options") as raised:
        load_settings()
    assert CORE not in "".join(traceback.format_exception(raised.value))


def test_row_38_settings_that_are_printed_or_wrong_show_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", f"postgresql://someone:{CORE}@127.0.0.1/antenna")
    monkeypatch.setenv("ANTENNA_SPARK_REMOTE", f"sc://127.0.0.1/;token={CORE}")
    assert CORE not in repr(load_settings())
    monkeypatch.setenv("ANTENNA_SPARK_MASTER", "local[1]")
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert CORE not in "".join(traceback.format_exception(raised.value))


def test_row_38_the_upgrade_guide_removes_the_snapshots_that_hold_a_password(
    postgres_url: str, connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Configured(dg.ConfigurableResource):
        url: str

    @dg.op
    def work(postgres: Configured) -> str:
        return postgres.url[:8]

    @dg.job(resource_defs={"postgres": Configured(url=f"postgresql://a:{CORE}@h/d")})
    def before_the_upgrade() -> None:
        work()

    guide = (docker_folder().parent / "docs" / "upgrade.md").read_text(encoding="utf-8")
    (statements,) = re.findall(r"```sql\n(.*?snapshot.*?)```", guide, re.DOTALL)
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text((docker_folder() / "dagster.yaml").read_text(encoding="utf-8"))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_url(postgres_url))
    with opened_instance() as instance:
        run_id = before_the_upgrade.execute_in_process(instance=instance).run_id
        assert holding(stored(connection), [CORE]).keys() == {"table snapshots"}
        connection.execute(statements)
        assert holding(stored(connection), [CORE]) == {}
        (run,) = instance.get_runs()
        assert (run.run_id, run.is_success) == (run_id, True)
        assert instance.all_logs(run_id)
        # The next run leaves a snapshot of its own.
        assert before_the_upgrade.execute_in_process(instance=instance).success
