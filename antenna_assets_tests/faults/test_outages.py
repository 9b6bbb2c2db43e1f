"""proofs.md, rows 4 and 8: what the stream stands on goes away while it runs, and it goes on by itself, exact."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.settings import Settings
from antenna_assets.streaming import committer
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.live import committed, running, wait_until
from antenna_assets_tests.faults.proxy import Proxy
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.standby import standby_of
from antenna_assets_tests.stream_engines import EACH_ENGINE_IN_THE_LONG_FORM, after_each_landing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.services

SEED = 20261124


def test_row_4_the_checkpoint_is_deleted_while_the_stream_runs(
    settings: Settings,
    spark: "SparkSession",
    tmp_path: Path,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    answers = tmp_path / "answers.json"
    random = Random(SEED)
    times = 10 if proving else 1
    send(settings, answers, seed=0, events=500)
    with running(settings, spark):
        wait_until(lambda: committed(settings) == 500)
        for number in range(1, times + 1):
            # Before, in and after a micro-batch.
            sending = threading.Thread(
                target=send, args=(settings, answers), kwargs={"seed": number, "events": 500}
            )
            sending.start()
            time.sleep(random.uniform(0, 3) if proving else 0)
            shutil.rmtree(settings.home / "checkpoints", ignore_errors=True)
            sending.join()
            wait_until(lambda number=number: committed(settings) == 500 * (number + 1))
    assert_exact(settings, answers)
    record_property("checkpoints deleted", times)


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_4_the_commit_succeeds_but_its_answer_is_lost(
    settings: Settings,
    stream_spark: "SparkSession | None",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    answers = tmp_path / "answers.json"
    random = Random(SEED)
    times = 10 if proving else 2
    lost = 0
    commit_batch = committer.commit_batch

    def commit_and_lose_the_answer(*arguments: object, **named: object) -> object:
        nonlocal lost
        found = commit_batch(*arguments, **named)  # type: ignore[arg-type]
        if lost < times and (not proving or random.random() < 0.7):
            lost += 1
            raise psycopg.OperationalError("consuming input failed: the connection was reset")
        return found

    monkeypatch.setattr(committer, "commit_batch", commit_and_lose_the_answer)
    sent = 0
    with running(settings, stream_spark) as said:
        while lost < times or sent < 900:
            sent += 300
            send(settings, answers, seed=sent, events=300)
            wait_until(lambda sent=sent: committed(settings) == sent)
        wait_until(lambda: "resuming from the ledger" in said)
    assert_exact(settings, answers)
    record_property("answers to COMMIT lost", lost)


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_4_a_stalled_stream_whose_session_ended_cannot_commit_after_another_took_over(
    settings: Settings,
    new_stream: Callable[[], Stream],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = tmp_path / "answers.json"
    send(settings, answers, events=500)
    stalled, wake_up, errors = threading.Event(), threading.Event(), []

    def stall_once(_folder: str) -> None:
        if not stalled.is_set():
            stalled.set()
            wake_up.wait(60)

    def stall() -> None:
        try:
            first.read_available()
        except Exception as error:
            errors.append(error)

    after_each_landing(monkeypatch, stall_once)
    first = new_stream()
    thread = threading.Thread(target=stall)
    thread.start()
    try:
        assert stalled.wait(60)
        with connect(settings.postgres_url or "") as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'antenna stream'"
            )
            free = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            wait_until(lambda: connection.execute(free).fetchone() == (0,))
        new_stream().read_available()
    finally:
        wake_up.set()
        thread.join(60)
    assert [type(error) for error in errors] in ([psycopg.OperationalError], [psycopg.errors.AdminShutdown])
    assert_exact(settings, answers)


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_8_postgresql_is_away_for_seconds_and_the_stream_says_so_once_and_goes_on(
    settings: Settings, stream_spark: "SparkSession | None", tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    send(settings, answers, seed=1, events=500)
    with Proxy(settings.postgres_url or "") as proxy, running(settings, stream_spark, proxy.url) as said:
        wait_until(lambda: committed(settings) == 500)
        proxy.cut()
        send(settings, answers, seed=2, events=500)
        # Several attempts fail: after 1, 2 and 4 seconds.
        time.sleep(8)
        proxy.mend()
        wait_until(lambda: committed(settings) == 1_000)
        wait_until(lambda: "resuming from the ledger" in said)
    assert [line for line in said if line.startswith("waiting: PostgreSQL")] == [
        line for line in said if line.startswith("waiting")
    ]
    assert len([line for line in said if line.startswith("waiting")]) == 1
    assert_exact(settings, answers)


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_8_postgresql_lets_nobody_in_for_seconds_and_the_stream_goes_on(
    settings: Settings, stream_spark: "SparkSession | None", postgres_server: str, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    send(settings, answers, seed=1, events=500)
    name = (settings.postgres_url or "").rpartition("/")[2]
    with running(settings, stream_spark) as said, connect(postgres_server) as server:
        wait_until(lambda: committed(settings) == 500)
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        send(settings, answers, seed=2, events=500)
        time.sleep(4)
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
        wait_until(lambda: committed(settings) == 1_000)
        wait_until(lambda: "resuming from the ledger" in said)
    assert len([line for line in said if line.startswith("waiting")]) == 1
    assert_exact(settings, answers)


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_37_the_address_leads_to_a_standby_after_a_failover_and_the_stream_goes_on_when_it_is_promoted(
    settings: Settings, stream_spark: "SparkSession | None", tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    send(settings, answers, seed=1, events=500)
    primary = settings.postgres_url or ""
    with (
        standby_of(primary) as standby,
        Proxy(primary) as proxy,
        running(settings, stream_spark, proxy.url) as said,
    ):
        after = settings.model_copy(update={"postgres_url": standby.url})
        wait_until(lambda: committed(settings) == 500)
        wait_until(lambda: committed(after) == 500)
        proxy.cut()
        proxy.lead_to(standby.url)
        proxy.mend()
        send(settings, answers, seed=2, events=500)
        wait_until(lambda: any("it is a standby, or became one" in line for line in said))
        standby.promote()
        wait_until(lambda: committed(after) == 1_000)
        wait_until(lambda: "resuming from the ledger" in said)
        assert_exact(after, answers)
