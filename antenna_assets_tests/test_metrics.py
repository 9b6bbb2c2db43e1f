"""`antenna metrics`: what a scrape tells of a literal ledger and of a real topic, and the alerts that are built on it."""

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from antenna_assets.clients.kafka_broker import Broker, BrokerError
from antenna_assets.domain.hours import HOUR
from antenna_assets.ledger.failing import MOST_ATTEMPTS
from antenna_assets.ledger.stream_lock import require_only_stream
from antenna_assets.operations.metrics import LedgerCollector, MetricsError, serve
from antenna_assets.settings import Settings
from antenna_assets.storage.project_files import docker_folder
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.end_to_end.test_pipeline import scenario, send
from antenna_assets_tests.free_ports import free_port
from antenna_assets_tests.notices import add_channel, write
from antenna_assets_tests.serving_rows import certify, hour

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DOCS = docker_folder().parent / "docs"


def no_broker() -> Broker:
    raise BrokerError("there is none")


def scraped(port: int) -> dict[str, float]:
    """Every sample of a scrape, by its name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextmanager
def serving(postgres_url: str, broker: Callable[[], Broker]) -> Iterator[int]:
    port = free_port()
    end = serve(postgres_url, broker, host="127.0.0.1", port=port, say=print)
    try:
        yield port
    finally:
        end()


def batch(connection: psycopg.Connection, number: int, rows: int, *, late: int = 0, **rejected: int) -> None:
    """A micro-batch that took two seconds."""
    committed = TEN + number * HOUR
    connection.execute(
        "INSERT INTO ledger.batch (batch, kind, committed_at, clock, rows, bytes, quarantined, late_rows)"
        " VALUES (%s, 'stream', %s, %s, %s, %s, %s, %s)",
        [number, committed, committed - 2 * SECOND, rows, 10 * rows, sum(rejected.values()), late],
    )
    for reason, count in rejected.items():
        connection.execute("INSERT INTO ledger.rejection VALUES (%s, %s, %s)", [number, reason, count])


def test_a_scrape_tells_what_the_ledger_holds_and_adds_what_came_since(
    connection: psycopg.Connection, postgres_url: str
) -> None:
    connection.execute(
        "INSERT INTO ledger.head (topic, topic_id, low_watermark, waiting_for, waiting_since)"
        " VALUES ('devices', 'id', %s, 'Kafka', now())",
        [TEN],
    )
    batch(connection, 1, 100, late=3, not_json=4)
    hour(connection, TEN, 50)
    certify(connection, TEN, 1, 1, TEN + HOUR + 90 * SECOND)
    hour(connection, TEN + HOUR, 10)
    hour(connection, TEN + 2 * HOUR, landed=10)
    hour(connection, TEN + 3 * HOUR, closed=False)
    connection.execute(
        "INSERT INTO ledger.failing_hour (hour, batch, attempts, run_id, ended, next_attempt)"
        " VALUES (%s, 1, %s, 'run', now(), now()), (%s, 1, 1, 'run', now(), now())",
        [TEN + HOUR, MOST_ATTEMPTS, TEN + 2 * HOUR],
    )
    with serving(postgres_url, no_broker) as port:
        assert scraped(port) == {
            "antenna_source_up{postgresql}": 1,
            "antenna_source_up{kafka}": 0,
            "antenna_batches_total": 1,
            "antenna_landed_rows_total": 100,
            "antenna_landed_bytes_total": 1_000,
            "antenna_late_rows_total": 3,
            "antenna_rejected_messages_total{not_json}": 4,
            "antenna_stream_runs": 0,
            "antenna_stream_waiting": 1,
            "antenna_closing_held_seconds": 0,
            "antenna_stream_clock_wrong": 0,
            "antenna_low_watermark_timestamp_seconds": TEN.timestamp(),
            "antenna_last_commit_timestamp_seconds": (TEN + HOUR).timestamp(),
            "antenna_batch_seconds": 2,
            "antenna_open_hours": 1,
            "antenna_hours_to_publish": 2,
            "antenna_late_hours": 0,
            "antenna_left_out_hours{before the first partition}": 0,
            "antenna_left_out_hours{in the future}": 0,
            "antenna_oldest_hour_to_publish_end_timestamp_seconds": (TEN + 2 * HOUR).timestamp(),
            "antenna_failing_hours{no}": 1,
            "antenna_failing_hours{yes}": 1,
            "antenna_failing_periods{no}": 0,
            "antenna_failing_periods{yes}": 0,
            "antenna_last_certificate_timestamp_seconds": (TEN + HOUR + 90 * SECOND).timestamp(),
            "antenna_certificate_delay_seconds": 90,
        }
        batch(connection, 2, 7, not_json=1, too_long=2)
        require_only_stream(connection)
        again = scraped(port)
        assert again["antenna_landed_rows_total"] == 107
        assert again["antenna_batches_total"] == 2
        assert again["antenna_rejected_messages_total{not_json}"] == 5
        assert again["antenna_rejected_messages_total{too_long}"] == 2
        assert again["antenna_stream_runs"] == 1
        # Scraping by itself adds nothing.
        assert scraped(port) == again


def test_notices_are_counted_by_channel_in_use(connection: psycopg.Connection, postgres_url: str) -> None:
    for name in ("ops", "idle", "removed"):
        add_channel(connection, name)
    write(connection, "waiting", "old", "dead", "sent", only_channel="ops")
    write(connection, "given-up", only_channel="removed")
    connection.execute("UPDATE alert_channel SET removed_at = now() WHERE name = 'removed'")
    for state, id in (("dead", "dead"), ("dead", "given-up"), ("delivered", "sent")):
        connection.execute(
            "UPDATE delivery SET state = %(state)s, delivered_at = CASE %(state)s WHEN 'delivered' THEN now() END"
            " FROM outbox WHERE number = outbox AND id = %(id)s",
            {"state": state, "id": id},
        )
    with serving(postgres_url, no_broker) as port:
        found = {name: value for name, value in scraped(port).items() if name.startswith("antenna_outbox")}
    age = found.pop("antenna_outbox_oldest_waiting_seconds{ops}")
    assert 0 < age < 60
    assert found == {
        "antenna_outbox_waiting{ops}": 2,
        "antenna_outbox_waiting{idle}": 0,
        "antenna_outbox_dead{ops}": 1,
        "antenna_outbox_dead{idle}": 0,
        "antenna_outbox_oldest_waiting_seconds{idle}": 0,
    }


def test_a_new_ledger_has_numbers_too(postgres_url: str) -> None:
    with serving(postgres_url, no_broker) as port:
        found = scraped(port)
    assert found["antenna_batches_total"] == 0
    assert found["antenna_hours_to_publish"] == 0
    assert "antenna_batch_seconds" not in found


def test_the_lag_is_what_the_stream_has_not_committed(
    settings: Settings, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    def broker() -> Broker:
        return Broker(settings.kafka_bootstrap or "", settings.topic)

    with serving(settings.postgres_url or "", broker) as port:
        send(settings, scenario(3, events=1_000), tmp_path / "answers.json")
        before = scraped(port)
        assert before["antenna_source_up{kafka}"] == 1
        assert sum(value for name, value in before.items() if name.startswith("antenna_lag")) == 1_000
        new_stream(settings).read_available()
        after = scraped(port)
    rejected = sum(value for name, value in after.items() if name.startswith("antenna_rejected"))
    assert [value for name, value in after.items() if name.startswith("antenna_lag")] == [0, 0, 0, 0]
    assert after["antenna_landed_rows_total"] + rejected == 1_000
    assert rejected > 0


def test_without_postgresql_a_scrape_says_so_and_the_next_one_goes_on(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    collector = LedgerCollector(postgres_url, no_broker, said.append)
    monkeypatch.setattr(collector, "_postgres_url", "postgresql://nobody@127.0.0.1:1/antenna")
    (away,) = collector.collect()
    assert [(sample.labels, sample.value) for sample in away.samples] == [({"source": "postgresql"}, 0)]
    # Its reason is said once, however often it is asked.
    collector.collect()
    (reason,) = said
    assert reason.startswith("postgresql cannot be read: ")
    assert "127.0.0.1" in reason
    monkeypatch.undo()
    for _ in range(2):
        assert len(list(collector.collect())) > 5
    assert said[1:] == ["kafka cannot be read: there is none", "postgresql answers again"]


def test_a_taken_port_is_a_clear_error(postgres_url: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            MetricsError, match=f"cannot listen on 127.0.0.1:{port}: .* choose another --port"
        ):
            serve(postgres_url, no_broker, host="127.0.0.1", port=port, say=print)


def test_the_command_serves_until_it_is_stopped(settings: Settings) -> None:
    port = free_port()
    command = (sys.executable, "-m", "antenna_assets.cli", "metrics", "--port", str(port))
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **settings.exports()}
    )
    try:
        said = process.stderr.readline() if process.stderr else ""
        assert f"metrics on http://127.0.0.1:{port}/metrics" in said
        assert scraped(port)["antenna_source_up{kafka}"] == 1
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_each_alert_has_its_page_and_asks_for_metrics_that_there_are() -> None:
    documented = set(re.findall(r"`(antenna_[a-z_]+)", (DOCS / "monitoring.md").read_text()))
    rules = yaml.safe_load((docker_folder() / "prometheus" / "alerts.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    for alert in alerts:
        assert set(re.findall(r"antenna_[a-z_]+", alert["expr"])) <= documented, alert["alert"]
        assert alert["annotations"]["page"] == f"docs/incidents/{alert['alert']}.md"
    pages = {path.stem for path in (DOCS / "incidents").glob("*.md")}
    assert pages == {alert["alert"] for alert in alerts}


def test_each_metric_is_documented(
    settings: Settings, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    send(settings, scenario(4, events=500), tmp_path / "answers.json")
    new_stream(settings).read_available()
    with serving(
        settings.postgres_url or "", lambda: Broker(settings.kafka_bootstrap or "", settings.topic)
    ) as port:
        found = {name.partition("{")[0] for name in scraped(port)}
    assert found <= set(re.findall(r"`(antenna_[a-z_]+)", (DOCS / "monitoring.md").read_text()))
