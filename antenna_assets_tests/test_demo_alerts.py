"""What `antenna demo` shows of allowances and alerts: a user's allowance, and notices as they arrive."""

import json
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from rich.console import Console
from standardwebhooks.webhooks import Webhook

from antenna_assets.cli.demo_alerts import LINES, Notices, allowance, local_receiver
from antenna_assets.domain.hours import HOUR
from antenna_assets.operations.alerts.channels import WebhookChannel, read_channels
from antenna_assets.operations.alerts.deliver import Deliverer
from antenna_assets.operations.alerts.senders import senders
from antenna_assets.settings import Settings
from antenna_assets_tests.notices import add_channel, owed, write
from antenna_assets_tests.serving_rows import FEDE, JUAN, certify, hour, insert, publish

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.services
def test_the_user_with_the_least_left_is_asked_about_to_the_byte(connection: psycopg.Connection) -> None:
    hour(connection, TEN, 56_000)
    insert(connection, "bytes_agg_user_1h", (TEN, FEDE, None, 5_000), (TEN, JUAN, None, 90_001))
    publish(connection, "bytes_agg_user_1h", TEN, 1)
    publish(connection, "users_over_quota_1h", TEN, 1)
    certify(connection, TEN, 1, 1, TEN + HOUR)
    connection.execute(
        "INSERT INTO ledger.head (topic, topic_id, read_past) VALUES ('devices', 'id', %s)", [TEN + HOUR]
    )
    console = Console(width=100, file=StringIO())
    for part in allowance(connection, [TEN]):
        console.print(part)
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert [line for line in lines if line.endswith(("allowed", "over quota"))] == [
        "90,001 100,000 4,999 allowed",
        "90,001 100,000 9,999 allowed",
        "90,001 100,000 10,000 over quota",
    ]
    assert lines[0] == "Allowance: juan, 2026-11-22-10:00"
    assert f"`antenna allowance {JUAN} --bytes N`" in " ".join(lines[-2:])
    assert list(allowance(connection, [TEN + HOUR])) == []


def test_a_minute_shows_a_few_notices_and_counts_the_others() -> None:
    said: list[str] = []
    now = 0.0
    notices = Notices(said.append, lambda: now)
    for number in range(LINES + 3):
        notices.arrived(f"id-{number}", f"notice {number}")
        notices.arrived(f"id-{number}", "the same again")
    assert said == [f"notice: notice {number}" for number in range(LINES)]
    now = 61.0
    notices.arrived("id-next", "of the next minute")
    assert said[LINES:] == [
        "and 3 more notices; `antenna alerts list` has them all",
        "notice: of the next minute",
    ]
    notices.count()
    assert len(said) == LINES + 2


@pytest.mark.services
def test_notices_are_sent_to_the_terminal_verified_and_nothing_is_left(
    connection: psycopg.Connection, postgres_url: str
) -> None:

    said: list[str] = []
    with local_receiver(postgres_url, said.append) as file:
        assert file is not None
        channels = read_channels(Settings(alert_channels=file))
        ways = senders(channels)
        stop = threading.Event()
        Deliverer(postgres_url, channels, ways, say=said.append, stop=stop).once()
        write(connection, "n-1", body={"type": "quota.raised", "summary": "ann at 80 %"})
        assert Deliverer(postgres_url, channels, ways, say=said.append, stop=stop).once() == 0
        (channel,) = channels.values()
        assert isinstance(channel, WebhookChannel)
        body = json.dumps({"summary": "a stranger's"})
        key = "whsec_" + "c3RyYW5nZXJzLWtleS1vZi10d2VudHktZm91ci1ieXRlcw=="
        now = datetime.now(UTC)
        headers = {
            "webhook-id": "n-2",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(key).sign("n-2", now, body),
        }
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(urllib.request.Request(channel.url, body.encode(), headers), timeout=10)
    assert said == ["notice: ann at 80 %", "a notice is refused: No matching signature found"]
    assert owed(connection, "delivered") == [("n-1", "demo")]
    assert not Path(file).parent.exists()
    assert connection.execute("SELECT FROM alert_channel WHERE removed_at IS NULL").fetchone() is None
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(channel.url, timeout=10)


@pytest.mark.services
def test_channels_that_are_in_use_keep_their_notices(
    connection: psycopg.Connection, postgres_url: str
) -> None:
    add_channel(connection, "ops")
    write(connection, "n-1")
    said: list[str] = []
    with local_receiver(postgres_url, said.append) as file:
        assert file is None
    assert said == ["notices go to the channels that are in use already (ops), and not to this terminal"]
    assert owed(connection, "waiting") == [("n-1", "ops")]
