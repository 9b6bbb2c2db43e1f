"""Mails against a real server: what is sent, and what becomes of each answer."""

import email
import email.policy
import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from antenna_assets.operations.alerts.log_line import LogLine
from antenna_assets.operations.alerts.mail import Mail, as_mail
from antenna_assets.operations.alerts.outcome import Notice, Outcome
from antenna_assets_tests.receivers import (
    Certificates,
    certificates,
    key_file,
    mail_channel,
    mail_server,
)

SECOND = timedelta(seconds=1)
WRITTEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
BODY = '{"type":"quota.raised","summary":"noël used 80 %","bytes":9007199254740993}'


def notice(body: str = BODY) -> Notice:
    return Notice("n-1", "quota.raised", "warning", WRITTEN, body, WRITTEN + timedelta(hours=1))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


def test_a_notice_is_sent_as_a_mail_with_the_same_id_at_each_attempt() -> None:
    with mail_server() as box:
        sender = Mail(mail_channel(box.port, to=["ops@example.com", "boss@example.com"]))
        assert sender.send(notice()) == Outcome(True, 250)
        assert sender.send(notice()) == Outcome(True, 250)
    first, second = box.mails
    assert first == second
    assert box.recipients[0] == ["ops@example.com", "boss@example.com"]
    mail = email.message_from_bytes(first, policy=email.policy.default)
    assert {name: mail[name] for name in ("From", "To", "Subject", "Message-ID", "Auto-Submitted")} == {
        "From": "antenna@example.com",
        "To": "ops@example.com, boss@example.com",
        "Subject": "[antenna, warning] noël used 80 %",
        "Message-ID": "<n-1@example.com>",
        "Auto-Submitted": "auto-generated",
    }
    assert mail["Date"].datetime == WRITTEN
    assert json.loads(mail.get_content()) == json.loads(BODY)


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        ("{}", "[antenna, warning] quota.raised"),
        ('{"summary":5}', "[antenna, warning] quota.raised"),
        ('{"summary":"x\\r\\nBcc: evil@example.com"}', "[antenna, warning] x\\r\\nBcc: evil@example.com"),
        ('{"summary":"\\ud83d"}', "[antenna, warning] \\ud83d"),
        ('{"summary":"' + "x" * 400 + '"}', "[antenna, warning] " + "x" * 149 + "…"),
    ],
)
def test_a_subject_is_one_line_whatever_the_summary_is(body: str, subject: str) -> None:
    mail = as_mail(notice(body), "a@example.com", ("b@example.com",))
    assert mail["Subject"] == subject
    assert mail.as_bytes()


@pytest.mark.parametrize(
    ("answers", "code", "final"),
    [
        ({"RCPT": "550 5.1.1 <ops@example.com>: no such user"}, 550, True),
        ({"RCPT": "451 4.7.1 greylisted"}, 451, False),
        ({"MAIL": "553 sender refused"}, 553, True),
        ({"MAIL": "421 too busy"}, 421, False),
        ({"DATA": "552 too large"}, 552, True),
        ({"DATA": "452 disk full"}, 452, False),
    ],
)
def test_permanent_and_temporary_answers_are_told_apart(
    answers: dict[str, str], code: int, final: bool
) -> None:
    with mail_server() as box:
        box.answers = answers
        outcome = Mail(mail_channel(box.port)).send(notice())
        assert (outcome.delivered, outcome.code, outcome.final) == (False, code, final)
        assert outcome.error.startswith(f"127.0.0.1:{box.port} answered {code} ")
        assert "@" not in outcome.error
        assert box.mails == []


def test_recipients_that_are_refused_beside_others_are_noted_and_nobody_gets_it_twice() -> None:
    with mail_server() as box:
        box.answers = {"RCPT a@example.com": "550 no such user"}
        outcome = Mail(mail_channel(box.port, to=["a@example.com", "b@example.com"])).send(notice())
        assert outcome == Outcome(True, 250, f"127.0.0.1:{box.port} refused 1 of 2 recipients (550)")
        assert box.recipients == [["b@example.com"]]


def test_one_who_may_be_accepted_later_keeps_the_others_from_being_final() -> None:
    with mail_server() as box:
        box.answers = {"RCPT a@example.com": "550 no such user", "RCPT b@example.com": "451 later"}
        outcome = Mail(mail_channel(box.port, to=["a@example.com", "b@example.com"])).send(notice())
        assert (outcome.delivered, outcome.code, outcome.final) == (False, 451, False)


@pytest.mark.parametrize("way", ["starttls", "tls"])
def test_a_mail_is_sent_encrypted_after_a_login(tmp_path: Path, tls: Certificates, way: str) -> None:
    password = "a-long-password"
    login = {"user": "antenna", "password_file": key_file(tmp_path, password), "tls": way, "ca_file": tls.ca}
    with mail_server(tls=tls.server, from_the_start=way == "tls", password=password) as box:
        assert Mail(mail_channel(box.port, **login)).send(notice()) == Outcome(True, 250)
        key_file(tmp_path, "another-password")
        outcome = Mail(mail_channel(box.port, **login)).send(notice())
        assert (outcome.code, outcome.final) == (535, False)
        assert "another-password" not in outcome.error
        key_file(tmp_path, password)
        unknown = Mail(mail_channel(box.port, **{**login, "ca_file": None})).send(notice())
        assert "has a certificate that is not accepted: " in unknown.error
        assert len(box.mails) == 1


def test_nothing_is_sent_in_the_clear_where_starttls_is_asked_for() -> None:
    with mail_server() as box:
        outcome = Mail(mail_channel(box.port, tls="starttls")).send(notice())
        assert outcome.error == f"127.0.0.1:{box.port} offers no STARTTLS, or not the login that is set"
        assert box.mails == []


def test_a_server_that_is_down_is_a_failure(closed_port: int) -> None:
    outcome = Mail(mail_channel(closed_port)).send(notice())
    assert outcome == Outcome(False, None, f"127.0.0.1:{closed_port} cannot be reached: Connection refused")


@pytest.mark.parametrize("behaviour", ["silent", "dripping", "closing", "nonsense", "refusing"])
def test_a_server_that_is_slow_or_speaks_otherwise_is_a_failure(behaviour: str) -> None:
    ending = threading.Event()

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            if behaviour == "nonsense":
                connection.sendall(b"what\r\n")
            if behaviour == "refusing":
                connection.sendall(b"554 go away\r\n")
            if behaviour in ("silent", "dripping"):
                try:
                    while not ending.wait(0.05):
                        if behaviour == "dripping":
                            connection.sendall(b"2")
                except OSError:
                    pass

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            place = f"127.0.0.1:{listening.getsockname()[1]}"
            patience = SECOND if behaviour in ("silent", "dripping") else 30 * SECOND
            outcome = Mail(mail_channel(listening.getsockname()[1], timeout=patience)).send(notice())
        finally:
            ending.set()
            thread.join()
    assert not outcome.delivered
    assert not outcome.final
    assert (
        outcome.error
        == {
            "silent": f"{place} did not answer within 1 s",
            "dripping": f"{place} did not answer within 1 s",
            "closing": f"{place} closed the connection, or answered something that is not SMTP",
            "nonsense": f"{place} closed the connection, or answered something that is not SMTP",
            "refusing": f"{place} answered 554 go away",
        }[behaviour]
    )


def test_a_log_has_a_line_of_ascii_for_each_notice(capsys: pytest.CaptureFixture[str]) -> None:
    assert LogLine().send(notice('{"summary":"noël\\u001b[31m"}')) == Outcome(True)
    line = capsys.readouterr().out
    assert line.isascii()
    assert json.loads(line) == {
        "id": "n-1",
        "kind": "quota.raised",
        "level": "warning",
        "created_at": "2026-11-22T10:00:00+00:00",
        "body": {"summary": "noël\x1b[31m"},
    }
