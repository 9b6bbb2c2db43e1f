"""`antenna alerts deliver` over a real PostgreSQL and real receivers: each notice at least once, under one id."""

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from antenna_assets.clients.migrations import migrate
from antenna_assets.clients.postgres import connect
from antenna_assets.operations.alerts.channels import Channel, LogChannel, WebhookChannel, read_channels
from antenna_assets.operations.alerts.deliver import Deliverer
from antenna_assets.operations.alerts.deliveries import REMOVED, record, record_channels, take
from antenna_assets.operations.alerts.outcome import GIVE_UP_AFTER, Notice, Outcome
from antenna_assets.operations.alerts.senders import Sender, senders
from antenna_assets.operations.forget.tables import remove_notices
from antenna_assets.settings import Settings
from antenna_assets.storage.project_files import docker_folder
from antenna_assets_tests.commands import antenna, refused
from antenna_assets_tests.faults.live import in_a_thread
from antenna_assets_tests.faults.processes import Process
from antenna_assets_tests.free_ports import free_port
from antenna_assets_tests.notices import owed, write
from antenna_assets_tests.receivers import (
    Answer,
    dripping,
    mail_channel,
    mail_server,
    new_key,
    receiver,
    webhook_channel,
)

pytestmark = pytest.mark.services

POINTS = ("alerts.taken", "alerts.sent")
KEY = new_key()
SECOND = timedelta(seconds=1)
LOG = LogChannel(kind="log")
DELIVER = ("antenna_assets.cli", "alerts", "deliver")


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def deliverer(url: str, channels: dict[str, Channel], said: list[str] | None = None) -> Deliverer:
    return Deliverer(
        url,
        channels,
        senders(channels),
        say=(said if said is not None else []).append,
        stop=threading.Event(),
    )


def once(url: str, channels: dict[str, Channel], said: list[str] | None = None) -> int:
    return deliverer(url, channels, said).once()


def due_now(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE delivery SET next_attempt = now() WHERE state = 'waiting'")
    connection.execute("UPDATE alert_channel SET paused_until = NULL")


def row(connection: psycopg.Connection, columns: str) -> tuple:
    (found,) = connection.execute(f"SELECT {columns} FROM delivery".encode()).fetchall()  # noqa: S608
    return found


@contextmanager
def running(url: str, channels: dict[str, Channel], said: list[str] | None = None) -> Iterator[None]:
    """A deliverer in a thread, until the end of the block."""
    job = deliverer(url, channels, said)
    with in_a_thread(job.run, job._stop.set):
        yield


def test_what_is_written_is_sent_to_each_channel_with_its_own_bytes(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver(KEY) as one, mail_server() as box:
        channels = {
            "ops": webhook_channel(tmp_path, KEY, one.port),
            "mail": mail_channel(box.port),
            "log": LOG,
        }
        with connection.transaction():
            record_channels(connection, channels)
        write(connection, "a", body={"b": 1, "a": "noël"})
        write(connection, "b", body={})
        assert once(postgres_url, channels) == 0
        assert one.got == [("a", '{"b":1,"a":"noël"}'), ("b", "{}")]
        assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == ["a", "b"]
        assert len(box.mails) == 2
    assert owed(connection, "delivered") == [(id, to) for id in "ab" for to in ("log", "mail", "ops")]
    rows = connection.execute("SELECT DISTINCT status_code, attempts, last_error, delivered_at > created_at FROM delivery"
                              " JOIN outbox ON number = outbox ORDER BY 1").fetchall()  # fmt: skip
    assert rows == [(204, 1, None, True), (250, 1, None, True), (None, 1, None, True)]


def test_a_receiver_that_is_down_gets_everything_once_it_is_back(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    port = free_port()
    channels: dict[str, Channel] = {"ops": webhook_channel(tmp_path, KEY, port)}
    record_channels(connection, channels)
    write(connection, "a", "b")
    said: list[str] = []
    for attempt in (1, 2, 3):
        assert once(postgres_url, channels, said) == 2
        assert row(connection, "DISTINCT state, attempts, status_code") == ("waiting", attempt, None)
        # Nothing is due before its wait is over.
        assert once(postgres_url, channels) == 0
        due_now(connection)
    assert (
        f"ops: a: attempt 1: 127.0.0.1:{port} cannot be reached: Connection refused; next attempt in "
        in said[0]
    )
    with receiver(KEY, port=port) as back:
        assert once(postgres_url, channels) == 0
        assert back.ids == ["a", "b"]
    assert row(connection, "DISTINCT state, attempts, last_error") == ("delivered", 4, None)


def test_a_pause_that_a_receiver_asks_for_holds_the_whole_channel_and_no_other(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    with receiver(KEY, Answer(429, {"retry-after": "600"})) as busy, receiver(KEY) as free:
        channels: dict[str, Channel] = {
            "busy": webhook_channel(tmp_path, KEY, busy.port),
            "free": webhook_channel(tmp_path, KEY, free.port),
        }
        record_channels(connection, channels)
        write(connection, "a", "b", "c")
        assert once(postgres_url, channels) == 1
        assert (busy.ids, free.ids) == (["a"], ["a", "b", "c"])
        assert once(postgres_url, channels) == 0
        assert busy.ids == ["a"]
        ((pause,),) = connection.execute(
            "SELECT paused_until - clock_timestamp() FROM alert_channel WHERE name = 'busy'"
        ).fetchall()
        assert 590 * SECOND < pause <= 600 * SECOND
        shown = connection.execute(
            "SELECT count(*) FROM deliveries WHERE state = 'waiting' AND next_attempt > now() + interval '9 minutes'"
        ).fetchone()
        assert shown == (3,)
        due_now(connection)
        assert once(postgres_url, channels) == 0
        assert busy.ids == ["a", "a", "b", "c"]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(410), "dead"),
        (Answer(302, {"location": "http://10.0.0.1/"}), "waiting"),
        (Answer(500), "waiting"),
    ],
)
def test_what_cannot_succeed_is_dead_at_once(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path, answer: Answer, state: str
) -> None:
    with receiver(KEY, answer) as one:
        channels: dict[str, Channel] = {"ops": webhook_channel(tmp_path, KEY, one.port)}
        record_channels(connection, channels)
        write(connection, "a")
        assert once(postgres_url, channels) == 1
        assert row(connection, "state, status_code") == (state, answer.status)


def test_what_fails_for_three_days_is_dead(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path, closed_port: int
) -> None:
    channels: dict[str, Channel] = {"ops": webhook_channel(tmp_path, KEY, closed_port)}
    record_channels(connection, channels)
    write(connection, "a")
    once(postgres_url, channels)
    connection.execute(
        "UPDATE delivery SET next_attempt = now(), first_attempt = now() - %s", [GIVE_UP_AFTER - 60 * SECOND]
    )
    once(postgres_url, channels)
    assert row(connection, "state, attempts") == ("waiting", 2)
    connection.execute(
        "UPDATE delivery SET next_attempt = now(), first_attempt = now() - %s", [GIVE_UP_AFTER]
    )
    said: list[str] = []
    once(postgres_url, channels, said)
    assert row(connection, "state, attempts") == ("dead", 3)
    assert said[0].endswith("given up; `antenna alerts retry a` tries it again")
    assert once(postgres_url, channels) == 0


def test_a_slow_receiver_holds_up_no_other_channel(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    slow = [Answer(raw=dripping(b"H")) for _ in range(50)]
    with receiver(KEY, *slow) as dead, receiver(KEY) as alive:
        channels: dict[str, Channel] = {
            "dead": webhook_channel(tmp_path, KEY, dead.port, timeout=30 * SECOND),
            "alive": webhook_channel(tmp_path, KEY, alive.port),
        }
        record_channels(connection, channels)
        write(connection, *(f"n{number}" for number in range(20)))
        with running(postgres_url, channels):
            wait_until(lambda: len(alive.got) == 20, 20)
            assert len(dead.got) == 1
            # Ends what is being sent.
            dead.ending.set()


def test_two_deliverers_at_once_send_each_notice_once(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    with receiver(KEY) as one:
        channels: dict[str, Channel] = {"ops": webhook_channel(tmp_path, KEY, one.port)}
        record_channels(connection, channels)
        ids = [f"n{number}" for number in range(200)]
        with running(postgres_url, channels), running(postgres_url, channels):
            for id in ids:
                write(connection, id)
            wait_until(lambda: len(owed(connection, "delivered")) == len(ids))
        assert Counter(one.ids) == Counter(ids)


def test_a_notice_is_sent_within_seconds_of_its_commit(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    with receiver(KEY) as one:
        channels: dict[str, Channel] = {"ops": webhook_channel(tmp_path, KEY, one.port)}
        record_channels(connection, channels)
        with running(postgres_url, channels):
            with connection.transaction():
                write(connection, "a")
                time.sleep(2)
                assert one.got == []
            wait_until(lambda: one.ids == ["a"], 20)


def test_a_channel_gets_nothing_from_before_it_and_what_waits_for_a_removed_one_is_dead(
    connection: psycopg.Connection, tmp_path: Path, closed_port: int
) -> None:
    ops: Channel = webhook_channel(tmp_path, KEY, closed_port)
    write(connection, "before")
    record_channels(connection, {"ops": ops})
    write(connection, "a")
    record_channels(connection, {"log": LOG})
    assert connection.execute(
        "SELECT id, channel, state, last_error FROM delivery JOIN outbox ON number = outbox"
    ).fetchall() == [("a", "ops", "dead", REMOVED)]
    write(connection, "between")
    record_channels(connection, {"log": LOG, "ops": ops})
    write(connection, "after")
    assert owed(connection, "waiting") == [("between", "log"), ("after", "log"), ("after", "ops")]
    seen = connection.execute(
        "SELECT name, removed_at IS NULL, added_at > (SELECT created_at FROM outbox WHERE id = 'between')"
        " FROM alert_channel ORDER BY 1"
    ).fetchall()
    assert seen == [("log", True, False), ("ops", True, True)]


def test_what_a_channel_selects_may_change_for_what_is_written_later(connection: psycopg.Connection) -> None:
    record_channels(connection, {"log": LOG})
    write(connection, "a", level="info")
    record_channels(
        connection, {"log": LogChannel(kind="log", levels=("critical",), kinds=("quota.raised",))}
    )
    write(connection, "b", level="info")
    write(connection, "c", level="critical")
    assert owed(connection) == [("a", "log"), ("c", "log")]


def test_a_notice_of_a_user_who_is_being_forgotten_is_waited_for_and_never_sent_again(
    connection: psycopg.Connection, postgres_url: str
) -> None:
    record_channels(connection, {"log": LOG})
    write(connection, "a", user="u1")
    removed = threading.Event()

    def remove() -> None:
        with connect(postgres_url) as other:
            remove_notices(other, "u1")
            removed.set()

    thread = threading.Thread(target=remove)
    with connection.transaction():
        due = take(connection, "log")
        assert due is not None
        thread.start()
        assert not removed.wait(1)
        record(connection, "log", due, Outcome(False, 500, "answered 500"))
    thread.join(30)
    assert removed.is_set()
    assert owed(connection) == []


@pytest.fixture
def alerting(settings: Settings, connection: psycopg.Connection, tmp_path: Path) -> Callable[[int], Settings]:
    """The test's settings with a file of channels whose one receiver is at this port."""

    def with_receiver(port: int) -> Settings:
        channel = webhook_channel(tmp_path, KEY, port)
        path = tmp_path / "channels.toml"
        path.write_text(
            f'[channels.ops]\nkind = "webhook"\nurl = "{channel.url}"\nsecret_file = "{channel.secret_file}"\n'
            'allow_private = true\ninsecure = true\ntimeout = "5 seconds"\n'
        )
        record_channels(connection, {"ops": channel})
        return settings.model_copy(update={"alert_channels": path})

    return with_receiver


@pytest.mark.parametrize("point", POINTS)
def test_row_42_a_deliverer_that_is_killed_sends_again_under_the_same_id(
    connection: psycopg.Connection, alerting: Callable[[int], Settings], point: str
) -> None:
    with receiver(KEY) as one:
        settings = alerting(one.port)
        write(connection, "a", "b", "c")
        with Process(settings, DELIVER, ANTENNA_CRASH_AT=f"{point}:2") as process:
            assert process.wait(60) == -signal.SIGKILL, process.said
        assert owed(connection, "delivered") == [("a", "ops")]
        with Process(settings, (*DELIVER, "--once")) as process:
            assert process.wait(60) == 0, process.said
        assert owed(connection, "delivered") == [("a", "ops"), ("b", "ops"), ("c", "ops")]
        # What was sent and not recorded is sent twice, and nothing is lost.
        twice = {"b": 2} if point == "alerts.sent" else {"b": 1}
        assert Counter(one.ids) == {"a": 1, "c": 1, **twice}


KILLS = 5


@pytest.mark.rounds(40)
def test_row_42_a_deliverer_that_is_killed_at_any_time_loses_no_notice_and_makes_up_none(
    connection: psycopg.Connection,
    alerting: Callable[[int], Settings],
    round_: int,
    record_property: Callable[[str, object], None],
) -> None:
    chance = random.Random(round_)
    flaky = [Answer(chance.choice([204, 204, 204, 500, 503])) for _ in range(400)]
    with receiver(KEY, *flaky) as one:
        settings = alerting(one.port)
        ids: list[str] = []
        for kill in range(KILLS):
            with Process(settings, DELIVER) as process:
                wait_until(lambda process=process: "sending to ops" in process.said)  # type: ignore[misc]
                for number in range(60):
                    ids.append(f"n-{kill}-{number}")
                    write(connection, ids[-1])
                time.sleep(chance.uniform(0, 0.3))
                process.kill()
                process.wait(30)
        one.answers.clear()
        due_now(connection)
        with Process(settings, (*DELIVER, "--once")) as process:
            assert process.wait(60) == 0, process.said
        assert owed(connection, "delivered") == [(id, "ops") for id in ids]
        assert {*one.ids} == {*ids}
        # Of what was accepted, only an attempt that a kill interrupted is repeated.
        assert len(one.accepted) - len(ids) <= KILLS
        record_property("kills", KILLS)
        record_property("notices", len(ids))


def test_a_suspended_deliverer_keeps_its_notice_from_others_only_until_postgresql_ends_its_session(
    connection: psycopg.Connection, postgres_url: str, alerting: Callable[[int], Settings], tmp_path: Path
) -> None:
    with receiver(KEY) as one:
        settings = alerting(one.port)
        write(connection, "a", "b")
        channels: dict[str, Channel] = {"ops": webhook_channel(tmp_path, KEY, one.port)}
        with Process(settings, DELIVER, ANTENNA_CRASH_AT="alerts.sent:pause") as process:
            wait_until(lambda: one.ids == ["a"])
            # Others go on with the next one.
            wait_until(lambda: once(postgres_url, channels) == 0 and one.ids == ["a", "b"])
            assert owed(connection, "delivered") == [("b", "ops")]
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'antenna alerts ops' AND state = 'idle in transaction'"
            )
            wait_until(lambda: once(postgres_url, channels) == 0 and one.ids == ["a", "b", "a"])
            # It wakes up, records nothing and goes on.
            process.stop(signal.SIGCONT)
            write(connection, "c")
            wait_until(lambda: one.ids == ["a", "b", "a", "c"])
            process.stop(signal.SIGTERM)
            assert process.wait(30) == 0, process.said


def test_the_process_waits_for_postgresql_and_says_so_once(
    new_database: Any, alerting: Callable[[int], Settings]
) -> None:
    with receiver(KEY) as one, new_database("template0") as url:
        there = alerting(one.port).model_copy(update={"postgres_url": url})
        with Process(there, DELIVER) as process:
            wait_until(lambda: "waiting: the database lacks migration 0001_ledger.sql" in process.said)
            with connect(url) as owner:
                migrate(owner)
            wait_until(lambda: "sending to ops" in process.said)
            with connect(url) as owner:
                write(owner, "a")
                wait_until(lambda: owed(owner, "delivered") == [("a", "ops")])
                owner.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'antenna alerts ops'"
                )
                write(owner, "b")
            wait_until(lambda: one.ids == ["a", "b"])
            wait_until(lambda: "resuming: PostgreSQL answers again" in process.said)
            process.stop(signal.SIGTERM)
            assert process.wait(30) == 0
            assert process.said.count("waiting: ") == 2


def test_sigterm_ends_after_what_is_being_sent(
    connection: psycopg.Connection, alerting: Callable[[int], Settings]
) -> None:
    def slow(link: Any, ending: threading.Event) -> None:
        ending.wait(2)
        link.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with receiver(KEY, Answer(raw=slow)) as one:
        settings = alerting(one.port)
        write(connection, "a", "b")
        with Process(settings, DELIVER) as process:
            wait_until(lambda: one.ids == ["a"])
            process.stop(signal.SIGTERM)
            assert process.wait(30) == 0, process.said
            assert "stopped" in process.said
        assert owed(connection, "delivered") == [("a", "ops")]
        assert owed(connection, "waiting") == [("b", "ops")]


def test_the_commands_list_retry_and_test(
    connection: psycopg.Connection, alerting: Callable[[int], Settings], closed_port: int
) -> None:
    environment = alerting(closed_port).exports()
    assert "nothing was sent or is to be sent" in antenna("alerts", "list", **environment).stdout
    write(connection, "a", "b")
    failing = antenna("alerts", "deliver", "--once", **environment)
    assert failing.returncode == 1
    assert "2 attempts failed; `antenna alerts list` shows which" in failing.stderr
    connection.execute("UPDATE delivery SET state = 'dead' WHERE outbox = (SELECT min(number) FROM outbox)")
    shown = [line.split() for line in antenna("alerts", "list", **environment).stdout.splitlines()]
    assert [(cells[0], cells[6]) for cells in shown if cells[:1] in (["a"], ["b"])] == [
        ("b", "waiting"),
        ("a", "dead"),
    ]
    dead = antenna("alerts", "list", "--state", "dead", "--json", **environment).stdout.splitlines()
    (line,) = [json.loads(line) for line in dead]
    assert (line["id"], line["channel"], line["state"], line["attempts"]) == ("a", "ops", "dead", 1)
    assert line["last_error"] == f"127.0.0.1:{closed_port} cannot be reached: Connection refused"
    assert "1 delivery is due now" in antenna("alerts", "retry", "--all-dead", **environment).stdout
    assert row(connection, "DISTINCT state") == ("waiting",)
    assert "1 delivery is due now" in antenna("alerts", "retry", "b", **environment).stdout
    assert "2 deliveries are due now" in antenna("alerts", "retry", "--channel", "ops", **environment).stdout
    assert "expected the id of a notice, found 'x'" in refused("alerts", "retry", "x", **environment)
    assert "expected one of ops, found 'y'" in refused("alerts", "retry", "--channel", "y", **environment)
    assert antenna("alerts", "retry", **environment).returncode == 2
    assert antenna("alerts", "list", "--state", "lost", **environment).returncode == 2
    no_deliverer = antenna("alerts", "send-test", "--channel", "ops", "--wait", "1", **environment)
    assert no_deliverer.returncode == 1
    assert "there was no attempt within 1 s; is `antenna alerts deliver` running" in no_deliverer.stdout
    assert [id for id, _ in owed(connection)] == ["a", "b"]


def test_a_test_of_a_channel_takes_the_way_of_every_notice(
    connection: psycopg.Connection, postgres_url: str, alerting: Callable[[int], Settings], tmp_path: Path
) -> None:
    with receiver(KEY, Answer(500)) as one:
        environment = alerting(one.port).exports()
        channels: dict[str, Channel] = {
            "ops": WebhookChannel(
                **{**webhook_channel(tmp_path, KEY, one.port).model_dump(), "levels": ["critical"]}
            ),
            "log": LOG,
        }
        record_channels(connection, channels)
        with running(postgres_url, channels):
            failing = antenna("alerts", "send-test", "--channel", "ops", **environment)
            assert (failing.returncode, failing.stdout) == (
                1,
                f"not delivered: 127.0.0.1:{one.port} answered 500\n",
            )
            done = antenna("alerts", "send-test", "--channel", "ops", **environment)
            assert (done.returncode, done.stdout) == (0, "delivered\n")
    assert json.loads(one.got[1][1]) == {"type": "test", "summary": "A test of the channel ops"}
    # The one that failed left nothing.
    assert owed(connection) == [(one.ids[1], "ops")]


def test_an_error_that_nobody_thought_of_is_of_one_attempt_and_shows_no_text(
    connection: psycopg.Connection, postgres_url: str
) -> None:
    class Broken:
        def send(self, notice: Notice) -> Outcome:
            raise ZeroDivisionError(f"secret {notice.body}")

    channels: dict[str, Channel] = {"broken": LOG, "log": LOG}
    record_channels(connection, channels)
    write(connection, "a")
    said: list[str] = []
    ways: dict[str, Sender] = {**senders(channels), "broken": Broken()}
    job = Deliverer(postgres_url, channels, ways, say=said.append, stop=threading.Event())
    assert job.once() == 1
    assert owed(connection, "delivered") == [("a", "log")]
    assert owed(connection, "waiting") == [("a", "broken")]
    assert re.search(
        r"unexpected error ZeroDivisionError in test_alerts_deliver.py, line \d+; please report it", said[0]
    )
    assert "secret" not in said[0]


def test_without_a_file_of_channels_nothing_is_touched(
    connection: psycopg.Connection, settings: Settings
) -> None:
    record_channels(connection, {"log": LOG})
    write(connection, "a")
    said = refused("alerts", "deliver", **settings.exports())
    assert "ANTENNA_ALERT_CHANNELS: expected the file" in said
    assert owed(connection, "waiting") == [("a", "log")]


def test_the_receiver_of_the_guide_verifies_what_is_sent_and_drops_what_it_has(
    tmp_path: Path, postgres_url: str, connection: psycopg.Connection
) -> None:
    guide = (docker_folder().parent / "docs" / "alerts.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    file = tmp_path / "receiver.py"
    file.write_text(program)
    port = free_port()
    channels: dict[str, Channel] = {"ops": webhook_channel(tmp_path, KEY, port)}
    command = [sys.executable, str(file), str(channels["ops"].secret_file), str(port)]  # type: ignore[union-attr]
    record_channels(connection, channels)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            write(connection, "a", body={"type": "quota.raised", "summary": "first"})
            wait_until(
                lambda: (
                    once(postgres_url, channels) == 0
                    and due_now(connection) is None
                    and owed(connection, "waiting") == []
                )
            )
            connection.execute(
                "UPDATE delivery SET state = 'waiting', delivered_at = NULL, next_attempt = now()"
            )
            write(connection, "b", body={"type": "quota.raised", "summary": "second"})
            assert once(postgres_url, channels) == 0
            webhook_channel(tmp_path, new_key(), port)
            write(connection, "c")
            assert once(postgres_url, channels) == 1
        finally:
            process.terminate()
        said = process.stdout.read() if process.stdout else ""
    assert said.splitlines() == ["quota.raised first", "quota.raised second"]
    assert row(connection, "max(status_code)") == (401,)


def test_the_channels_of_the_guide_are_valid(tmp_path: Path) -> None:
    guide = (docker_folder().parent / "docs" / "alerts.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    path = tmp_path / "channels.toml"
    path.write_text(text)
    found = read_channels(Settings(alert_channels=path))
    assert {name: channel.kind for name, channel in found.items()} == {
        "ops": "webhook",
        "mail": "smtp",
        "log": "log",
    }
