"""Webhooks against real servers: what is sent, and what becomes of each thing that a receiver may do."""

import json
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from antenna_assets.operations.alerts import addresses
from antenna_assets.operations.alerts.outcome import Notice, Outcome
from antenna_assets.operations.alerts.webhook import Webhook
from antenna_assets_tests.receivers import (
    Answer,
    Certificates,
    Receiver,
    certificates,
    dripping,
    key_file,
    new_key,
    receiver,
    webhook_channel,
)

KEY = new_key()
BODY = '{"type":"quota.raised","summary":"80 % is used","user":"noël 😀"}'
SECOND = timedelta(seconds=1)


def notice(body: str = BODY) -> Notice:
    now = datetime.now(UTC)
    return Notice("n-1", "quota.raised", "warning", now, body, now)


@pytest.fixture
def on(tmp_path: Path) -> Callable[..., tuple[Outcome, Receiver]]:
    """Sends a notice to a receiver that answers like this."""

    def send(*answers: Answer, **more: object) -> tuple[Outcome, Receiver]:
        with receiver(KEY, *answers) as running:
            channel = webhook_channel(tmp_path, KEY, running.port, **{"timeout": 30 * SECOND, **more})
            return Webhook(channel).send(notice()), running

    return send


def test_a_notice_is_sent_signed_with_its_own_bytes(on: Callable[..., tuple[Outcome, Receiver]]) -> None:
    outcome, running = on()
    assert outcome == Outcome(True, 204)
    assert running.got == [("n-1", BODY)]
    (headers,) = running.headers
    assert headers["host"] == f"127.0.0.1:{running.port}"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "antenna-lakehouse"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60


def test_a_receiver_with_another_key_would_refuse_it(on: Callable[..., tuple[Outcome, Receiver]]) -> None:
    _, running = on()
    with pytest.raises(WebhookVerificationError):
        Verifier(new_key()).verify(BODY, dict(running.headers[0].items()))
    with pytest.raises(WebhookVerificationError):
        Verifier(KEY).verify(BODY + " ", dict(running.headers[0].items()))


def test_while_keys_are_exchanged_a_receiver_may_know_either(tmp_path: Path) -> None:
    old = new_key()
    previous = key_file(tmp_path, old, "old")
    for known in (KEY, old):
        with receiver(known) as running:
            channel = webhook_channel(tmp_path, KEY, running.port, previous_secret_file=previous)
            assert Webhook(channel).send(notice()).delivered
            assert running.ids == ["n-1"]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_success_is_one(on: Callable[..., tuple[Outcome, Receiver]], status: int) -> None:
    assert on(Answer(status))[0] == Outcome(True, status)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 500, 502, 503, 504, 599])
def test_another_answer_is_a_failure_that_may_pass(
    on: Callable[..., tuple[Outcome, Receiver]], status: int
) -> None:
    outcome, running = on(Answer(status))
    assert outcome == Outcome(False, status, f"127.0.0.1:{running.port} answered {status}")


def test_a_receiver_that_is_gone_for_good_gets_no_other_attempt(
    on: Callable[..., tuple[Outcome, Receiver]],
) -> None:
    outcome, _ = on(Answer(410))
    assert (outcome.code, outcome.final) == (410, True)


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_is_left_alone_as_long_as_it_asks_for(
    on: Callable[..., tuple[Outcome, Receiver]], status: int
) -> None:
    assert on(Answer(status, {"retry-after": "120"}))[0].pause == 120 * SECOND
    until = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=False)
    pause = on(Answer(status, {"retry-after": until}))[0].pause
    assert pause is not None
    assert timedelta(minutes=9) < pause <= timedelta(minutes=10)
    assert on(Answer(status, {"retry-after": "soon"}))[0].pause is None
    assert on(Answer(500, {"retry-after": "120"}))[0].pause is None


def test_a_redirect_is_a_failure_that_names_where_to_and_is_not_followed(
    on: Callable[..., tuple[Outcome, Receiver]],
) -> None:
    with receiver(KEY) as other:
        to = f"http://localhost:{other.port}/latest/meta-data?token=secret"
        for status in (301, 302, 303, 307, 308):
            outcome, running = on(Answer(status, {"location": to}))
            assert outcome == Outcome(
                False,
                status,
                f"127.0.0.1:{running.port} answered {status}, a redirect to localhost, which is not followed",
            )
        assert other.got == []
    assert "to the same host" in on(Answer(302))[0].error
    assert "to an invalid address" in on(Answer(302, {"location": "http://[x"}))[0].error


def silent(_connection: socket.socket, ending: threading.Event) -> None:
    ending.wait()


@pytest.mark.parametrize(
    "behaviour",
    [
        silent,
        dripping(b"H"),
        dripping(b"HTTP/1.1 200 OK\r\nx-endless: "),
    ],
)
def test_a_slow_receiver_is_given_up_after_the_time_of_its_channel(
    on: Callable[..., tuple[Outcome, Receiver]], behaviour: Callable[..., None]
) -> None:
    began = time.monotonic()
    outcome, running = on(Answer(raw=behaviour), timeout=SECOND)
    assert outcome == Outcome(False, None, f"127.0.0.1:{running.port} did not answer within 1 s")
    assert 0.9 < time.monotonic() - began < 10


def test_an_endless_body_is_not_read(on: Callable[..., tuple[Outcome, Receiver]]) -> None:
    answer = Answer(raw=dripping(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"))
    assert on(answer)[0] == Outcome(True, 200)


def closing(text: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def close(connection: socket.socket, _ending: threading.Event) -> None:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_RDWR)

    return close


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 20", "answered something that is not HTTP (BadStatusLine)"),
        (b"SSH-2.0-OpenSSH\r\n", "answered something that is not HTTP (BadStatusLine)"),
        (b"HTTP/1.1 abc\r\n\r\n", "answered something that is not HTTP (BadStatusLine)"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200, "answered something that is not HTTP (HTTPException)"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, "answered something that is not HTTP (LineTooLong)"),
    ],
)
def test_a_receiver_that_breaks_off_or_speaks_otherwise_is_a_failure(
    on: Callable[..., tuple[Outcome, Receiver]], text: bytes, error: str
) -> None:
    outcome, running = on(Answer(raw=closing(text)))
    assert outcome == Outcome(False, None, f"127.0.0.1:{running.port} {error}")


def test_a_receiver_that_closes_in_the_middle_of_its_answers_body_has_the_notice(
    on: Callable[..., tuple[Outcome, Receiver]],
) -> None:
    answer = Answer(raw=closing(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"))
    assert on(answer)[0] == Outcome(True, 200)


def test_a_receiver_that_is_down_is_a_failure_without_its_path(closed_port: int, tmp_path: Path) -> None:
    outcome = Webhook(webhook_channel(tmp_path, KEY, closed_port)).send(notice())
    assert outcome == Outcome(False, None, f"127.0.0.1:{closed_port} cannot be reached: Connection refused")


def test_a_name_that_does_not_exist_is_a_failure(tmp_path: Path) -> None:
    channel = webhook_channel(tmp_path, KEY, 1, url="http://nowhere.invalid/secret-path")
    outcome = Webhook(channel).send(notice())
    assert outcome.error.startswith("nowhere.invalid:80 cannot be resolved: ")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]", "0x7f.1"]
)
def test_a_private_address_gets_nothing_unless_the_channel_allows_it(tmp_path: Path, host: str) -> None:
    with receiver(KEY) as running:
        channel = webhook_channel(
            tmp_path, KEY, running.port, url=f"http://{host}:{running.port}/", allow_private=False
        )
        outcome = Webhook(channel).send(notice())
        assert running.got == []
    assert not outcome.delivered
    assert "an address that is" in outcome.error


def test_a_name_is_resolved_once_and_what_was_checked_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with DNS rebinding: the first answer would be allowed, each later one is where the receiver is."""
    asked = []

    def resolve(host: str, port: int, **_: object) -> list[tuple]:
        asked.append(host)
        address = "127.0.0.2" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))]

    with receiver(KEY) as running:
        channel = webhook_channel(tmp_path, KEY, running.port, url=f"http://rebinding.test:{running.port}/")
        sender = Webhook(channel)
        monkeypatch.setattr(addresses.socket, "getaddrinfo", resolve)
        outcome = sender.send(notice())
        assert asked == ["rebinding.test"]
        assert running.got == []
    assert outcome.error == f"rebinding.test:{running.port} cannot be reached: Connection refused"


def test_the_second_address_of_a_name_is_tried_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(KEY) as running:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (f"127.0.0.{n}", running.port)) for n in (2, 1)]
        channel = webhook_channel(tmp_path, KEY, running.port, url=f"http://two.test:{running.port}/")
        sender = Webhook(channel)
        monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *_, **__: found)
        assert sender.send(notice()).delivered
        assert running.headers[0]["host"] == f"two.test:{running.port}"


def test_a_proxy_of_the_environment_is_not_asked(
    on: Callable[..., tuple[Outcome, Receiver]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert on()[0].delivered


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


def test_https_is_verified(tmp_path: Path, tls: Certificates) -> None:
    with receiver(KEY, tls=tls.server) as running:
        url = f"https://127.0.0.1:{running.port}/"
        trusted = webhook_channel(tmp_path, KEY, running.port, url=url, ca_file=tls.ca, insecure=False)
        assert Webhook(trusted).send(notice()) == Outcome(True, 204)
        unknown = webhook_channel(tmp_path, KEY, running.port, url=url)
        refused = Webhook(unknown).send(notice())
        # Whatever `insecure` says: it is about http.
        assert "has a certificate that is not accepted: " in refused.error
        other = webhook_channel(
            tmp_path, KEY, running.port, url=f"https://localhost:{running.port}/", ca_file=tls.ca
        )
        assert "Hostname mismatch" in Webhook(other).send(notice()).error
        assert running.ids == ["n-1"]


def test_a_tls_handshake_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        channel = webhook_channel(tmp_path, KEY, port, url=f"https://127.0.0.1:{port}/", timeout=SECOND)
        outcome = Webhook(channel).send(notice())
    assert outcome.error == f"127.0.0.1:{port} did not answer within 1 s"


def test_a_body_of_the_largest_size_is_sent(tmp_path: Path) -> None:
    body = json.dumps({"x": "y" * 65_000})
    with receiver(KEY) as running:
        assert Webhook(webhook_channel(tmp_path, KEY, running.port)).send(notice(body)).delivered
        assert running.got == [("n-1", body)]
