"""The whole line over TLS: Kafka with a SCRAM login, PostgreSQL with `verify-full`, each part with its own login."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from antenna_assets.clients import kafka_broker as broker
from antenna_assets.clients.kafka_broker import AuthenticationFailed, Broker, BrokerError
from antenna_assets.clients.kafka_config import PLAIN, read_kafka_config
from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.operations.doctor import Finding, findings
from antenna_assets.settings import Settings
from antenna_assets.stack.kafka import KafkaError
from antenna_assets.stack.kafka_topic import ensure_topic
from antenna_assets_tests.containers.secured import TOPIC, Secured, make_secrets, passwords

pytestmark = pytest.mark.services


def environment(secured: Secured, home: Path, *, login: str, kafka_login: str) -> dict[str, str]:
    """What a container of that login has, as a process here."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("PG", "DAGSTER_"))}
    return {
        **inherited,
        "ANTENNA_HOME": str(home),
        "ANTENNA_LAKE": str(secured.lake),
        "ANTENNA_POSTGRES_URL": secured.secret(f"postgres_{login}"),
        "ANTENNA_KAFKA_BOOTSTRAP": secured.kafka,
        "ANTENNA_KAFKA_CONFIG": str(secured.folder / f"kafka_{kafka_login}"),
    }


def antenna(
    environment: dict[str, str], *arguments: str, module: str = "antenna_assets.cli"
) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", module, *arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def said(run: subprocess.CompletedProcess[str]) -> str:
    return " ".join((run.stdout + run.stderr).split())


def test_an_hour_goes_from_kafka_to_the_published_tables_and_no_password_is_told(
    secured: Secured, tmp_path: Path
) -> None:
    first = hour_of(datetime.now(UTC) - timedelta(minutes=2)) - HOUR
    answers = tmp_path / "answers.json"
    stream = environment(secured, tmp_path, login="stream", kafka_login="stream")
    publisher = environment(secured, tmp_path, login="publisher", kafka_login="stream")
    owner = environment(secured, tmp_path, login="antenna", kafka_login="owner")
    simulator = environment(secured, tmp_path, login="stream", kafka_login="simulator")

    up = antenna(owner, "up")
    exported = antenna(publisher, "env")
    scenario = (
        "--events",
        "2000",
        "--seed",
        "7",
        "--start",
        first.isoformat(),
        "--hours",
        "1",
        "--late",
        "0.01",
    )
    sent = antenna(simulator, "simulate", *scenario, "--malformed", "0.01", "--answers", str(answers))
    # All that Spark would ever tell, Kafka's own configuration included.
    loud = tmp_path / "loud"
    loud.mkdir()
    (loud / "log4j2.properties").write_text(
        "rootLogger.level = info\nrootLogger.appenderRef.file.ref = file\nappender.file.type = File\n"
        f"appender.file.name = file\nappender.file.fileName = {loud}/spark.log\n"
        "appender.file.layout.type = PatternLayout\nappender.file.layout.pattern = %p %c %m%n\n"
    )
    program = (
        "import sys; from pathlib import Path; from antenna_assets import cli; from antenna_assets.engines import spark_session;"
        f"spark_session.LOG_CONFIGURATION = Path({str(loud / 'log4j2.properties')!r});"
        "sys.argv = ['antenna', 'stream', '--available-now']; cli.main()"
    )
    read = subprocess.run(
        (sys.executable, "-c", program),
        env={**stream, "ANTENNA_STREAM_ENGINE": "spark"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    dagster = {**publisher, **dict(re.findall(r"^export (\w+)='(.*)'$", exported.stdout, re.MULTILINE))}
    tags = f'{{"dagster/partition": "{hour_key(first)}"}}'
    job = ("job", "execute", "-m", "antenna_assets.definitions", "-j", "hourly_usage", "--tags", tags)
    published = antenna(dagster, *job, module="dagster")
    checked = antenna(owner, "check", "--answers", str(answers))
    status, looked = antenna(owner, "status"), antenna(owner, "doctor")
    # Later messages go through the embedded reader.
    more = antenna(simulator, "simulate", "--events", "50", "--start", first.isoformat(), "--hours", "1")
    embedded = antenna(stream, "stream", "--available-now")

    steps = (up, exported, sent, read, published, checked, status, looked, more, embedded)
    assert [run.returncode for run in steps] == [0] * len(steps), "\n".join(map(said, steps))
    assert "all tables equal the answers" in said(checked)
    assert "50 messages in" in said(embedded)

    log = (loud / "spark.log").read_text()
    assert "sasl.jaas.config = [hidden]" in log
    assert "security.protocol = SASL_SSL" in log
    told = log + "".join(run.stdout + run.stderr for run in steps if run is not exported)
    told += "".join(
        path.read_text(errors="replace")
        for path in (*tmp_path.rglob("*"), *secured.lake.rglob("*"))
        if path.is_file() and path.parent != loud
    )
    told += (secured.folder.parent / "kafka" / "console.log").read_text()
    told += "".join(path.read_text() for path in (secured.folder.parent / "postgres" / "log").iterdir())
    assert [password for password in passwords(secured.folder) if password in told] == []
    # `antenna env` is asked for PostgreSQL's address; of Kafka's password it knows only the file.
    of_kafka = [secured.secret(path.name) for path in secured.folder.glob("password_kafka_*")]
    assert [password for password in of_kafka if password in exported.stdout] == []


def test_every_connection_of_the_line_is_encrypted_and_of_its_own_login(secured: Secured) -> None:
    for login in ("stream", "publisher", "dashboards", "administrator", "alerts", "watch"):
        with connect(secured.secret(f"postgres_{login}")) as connection:
            found = connection.execute(
                "SELECT ssl, version, usename FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                " WHERE pid = pg_backend_pid()"
            ).fetchone()
        assert found == (True, "TLSv1.3", login)


def batches_and_messages(secured: Secured) -> tuple[int, int]:
    """The ledger's batches, and what Kafka holds."""
    with connect(secured.secret("postgres_antenna")) as connection:
        (batches,) = connection.execute("SELECT count(*) FROM ledger.batch").fetchall()[0]
    kafka = Broker(secured.kafka, TOPIC, read_kafka_config(secured.folder / "kafka_owner"))
    return batches, sum(kafka.next_offsets(kafka.describe()).values())


@pytest.fixture
def other_authority(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    make_secrets(folder, "secure")
    return folder / "ca"


def changed(secured: Secured, folder: Path, there: str, here: str) -> Path:
    """The stream's configuration with something else in it."""
    text = secured.secret("kafka_stream")
    assert there in text
    path = folder / "changed.properties"
    path.write_text(text.replace(there, here) + "\n", encoding="utf-8")
    return path


def test_who_is_wrong_for_kafka_is_refused_with_the_reason_and_nothing_lands(
    secured: Secured, tmp_path: Path, other_authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = batches_and_messages(secured)
    authority, password = str(secured.folder / "ca"), secured.secret("password_kafka_stream")
    for there, here, reason in (
        (authority, str(other_authority), "certificate verify failed"),
        ('username="stream"', 'username="nobody"', "Authentication failed"),
        (password, "guessed", "Authentication failed"),
    ):
        config = read_kafka_config(changed(secured, tmp_path, there, here))
        with pytest.raises(
            AuthenticationFailed, match=f"(?s){secured.kafka} denies access: .*{reason}"
        ) as refused:
            Broker(secured.kafka, TOPIC, config).describe()
        assert "ANTENNA_KAFKA_CONFIG" in str(refused.value)
        assert password not in str(refused.value)
    with pytest.raises(KafkaError, match="Authentication failed"):
        ensure_topic(secured.kafka, "another", config=config)
    # Nobody says why there is no answer.
    monkeypatch.setattr(broker, "TIMEOUT_SECONDS", 3)
    with pytest.raises(BrokerError, match="if it needs TLS or a login, set ANTENNA_KAFKA_CONFIG"):
        Broker(secured.kafka, TOPIC, PLAIN).describe()
    assert batches_and_messages(secured) == before


def test_a_stream_with_a_wrong_password_ends_at_once_and_says_why(secured: Secured, tmp_path: Path) -> None:
    before = batches_and_messages(secured)
    given = environment(secured, tmp_path, login="stream", kafka_login="stream")
    path = changed(secured, tmp_path, secured.secret("password_kafka_stream"), "guessed")
    for arguments in (("stream",), ("stream", "--available-now")):
        run = antenna({**given, "ANTENNA_KAFKA_CONFIG": str(path)}, *arguments)
        assert run.returncode == 1
        assert re.search("denies access: .*Authentication failed", said(run))
        assert "guessed" not in said(run)
    assert batches_and_messages(secured) == before


@pytest.mark.parametrize(
    ("there", "here", "reason"),
    [
        ("sslrootcert={ca}", "sslrootcert={other}", "certificate verify failed"),
        ("{password}", "guessed", "password authentication failed"),
        ("sslmode=verify-full", "sslmode=disable", "no encryption"),
        ("127.0.0.1", "localhost", "does not match"),
    ],
    ids=["authority", "password", "plain", "host"],
)
def test_who_is_wrong_for_postgresql_is_refused_with_the_reason(
    secured: Secured, other_authority: Path, there: str, here: str, reason: str
) -> None:
    password = secured.secret("password_stream")
    places = {"ca": secured.folder / "ca", "other": other_authority, "password": password}
    address = secured.secret("postgres_stream")
    assert there.format(**places) in address
    with pytest.raises(DatabaseError, match=reason) as refused:
        connect(address.replace(there.format(**places), here.format(**places)))
    assert password not in str(refused.value)


def test_the_doctor_says_what_is_wrong_with_a_login(secured: Secured, tmp_path: Path) -> None:
    def kafka(config: Path) -> Finding:
        settings = Settings(
            home=tmp_path,
            postgres_url=secured.secret("postgres_antenna"),
            kafka_bootstrap=secured.kafka,
            kafka_config=config,
        )
        return next(finding for finding in findings(settings) if finding.name == "Kafka")

    assert kafka(secured.folder / "kafka_stream").ok
    refused = kafka(changed(secured, tmp_path, secured.secret("password_kafka_stream"), "guessed"))
    assert not refused.ok
    assert "Authentication failed" in refused.found
    assert "ANTENNA_KAFKA_CONFIG" in refused.fix
    unreadable = kafka(tmp_path / "none")
    assert not unreadable.ok
    assert "cannot be read" in unreadable.found


def test_the_dashboards_login_reads_no_email(secured: Secured) -> None:
    with (
        connect(secured.secret("postgres_dashboards")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT email FROM user_metadata")
