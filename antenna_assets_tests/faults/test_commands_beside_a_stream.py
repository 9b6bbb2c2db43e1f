"""Whole commands beside a running embedded stream that merges small files: the tables are exact afterwards."""

import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.settings import Settings
from antenna_assets.streaming import merger
from antenna_assets.streaming.embedded import batches
from antenna_assets_tests.end_to_end.producing import event
from antenna_assets_tests.exactness import committed_by_the_ledger, held_by_the_broker, named_by_the_ledger
from antenna_assets_tests.faults.live import committed, repeated, running, wait_until
from antenna_assets_tests.faults.merging_stream import few_files
from antenna_assets_tests.stream_engines import EMBEDDED
from antenna_assets_tests.test_forget import kept_with

pytestmark = [pytest.mark.services, EMBEDDED]

USERS = 5
FORGOTTEN = "user-2-who-is-forgotten"
MEND = """
import json

def transform(value: bytes) -> bytes | None:
    event = json.loads(value)
    return json.dumps({**event, "bytes": int(event["bytes"])}).encode()
"""


@pytest.fixture
def ledger(settings: Settings) -> Iterator[psycopg.Connection]:
    with connect(settings.postgres_url or "") as connection:
        yield connection


@pytest.fixture
def _merging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Many small micro-batches, of which three files are enough to merge."""
    monkeypatch.setattr(batches, "LEAST_SECONDS", 0.02)
    monkeypatch.setattr(merger, "FILES_PER_MERGE", (3, 2, 2))
    with few_files():
        yield


class Sent:
    """What was sent: events of some users, each tenth with its bytes in quotes, which is rejected."""

    def __init__(self, settings: Settings) -> None:
        from confluent_kafka import Producer

        self._topic = settings.topic
        self._producer = Producer({"bootstrap.servers": settings.kafka_bootstrap})
        self._numbers = itertools.count(1)
        self.messages = 0
        self.good: Counter[str] = Counter()
        self.quoted: Counter[str] = Counter()

    def some(self, users: list[str], count: int = 1) -> None:
        for number in itertools.islice(self._numbers, count):
            user, is_quoted = users[number % len(users)], number % 10 == 0
            (self.quoted if is_quoted else self.good)[user] += number
            value = event(number, id=user, **({"bytes": str(number)} if is_quoted else {}))
            self._producer.produce(self._topic, value, partition=number % 4)
            self.messages += 1
        assert self._producer.flush(30) == 0

    def keep_coming(self, users: list[str]) -> AbstractContextManager[None]:
        """Some more in another thread, until the block ends; nobody else may send meanwhile."""
        return repeated(lambda: self.some(users), pause=0.02)


def antenna(*arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "antenna_assets.cli", *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def merges(ledger: psycopg.Connection) -> int:
    return ledger.execute("SELECT sum(merges) FROM ledger.head").fetchall()[0][0] or 0


def merged_again(ledger: psycopg.Connection, times: int = 3) -> Callable[[], bool]:
    """Whether the stream has merged so many times more since now."""
    before = merges(ledger)
    return lambda: merges(ledger) >= before + times


def live(ledger: psycopg.Connection, table: str, key: str, column: str) -> dict[str, int]:
    query = f"SELECT {key}, sum({column})::bigint FROM {table} GROUP BY 1"  # noqa: S608
    return dict(ledger.execute(query.encode()).fetchall())


def assert_sums(ledger: psycopg.Connection, users: Counter[str]) -> None:
    """The live tables have exactly the bytes of these users."""
    assert live(ledger, "bytes_agg_user", "id", "sum_user_bytes") == users
    assert live(ledger, "bytes_agg_app", "app", "sum_app_bytes") == {"A": users.total()}
    assert live(ledger, "bytes_agg_antenna", "antenna_id", "sum_antenna_bytes") == {"a1": users.total()}


def landed(settings: Settings, ledger: psycopg.Connection) -> list[tuple[int, int]]:
    """The coordinates of every accepted row that the ledger names."""
    found = []
    for (path,) in ledger.execute("SELECT path FROM ledger.file WHERE kind = 'landed'").fetchall():
        table = pq.ParquetFile(Path(settings.lake_uri) / path).read(["kafka_partition", "kafka_offset"])
        found += zip(table[0].to_pylist(), table[1].to_pylist(), strict=True)
    return sorted(found)


@pytest.mark.usefixtures("_merging")
def test_messages_are_replayed_beside_an_embedded_stream_that_merges_and_each_counts_once(
    settings: Settings, ledger: psycopg.Connection, tmp_path: Path, proving: bool
) -> None:
    (tmp_path / "mend.py").write_text(MEND)
    replay = ("quarantine", "replay", "--all", "--transform", str(tmp_path / "mend.py"))
    sent, users = Sent(settings), [f"u{number}" for number in range(USERS)]
    with running(settings, None) as said:
        with sent.keep_coming(users):
            for _ in range(10 if proving else 2):
                wait_until(merged_again(ledger))
                assert "replayed" in antenna(*replay)
            wait_until(merged_again(ledger))
        sent.some(users, 20)
        wait_until(lambda: committed(settings) >= sent.messages)
        assert "replayed" in antenna(*replay)
    assert "Traceback" not in "".join(said)
    assert committed_by_the_ledger(settings) == held_by_the_broker(settings)
    assert landed(settings, ledger) == held_by_the_broker(settings)
    assert_sums(ledger, sent.good + sent.quoted)


@pytest.mark.usefixtures("_merging")
def test_row_34_a_user_is_forgotten_beside_an_embedded_stream_that_merges_and_every_sum_stays(
    settings: Settings, ledger: psycopg.Connection, proving: bool
) -> None:
    sent, others = Sent(settings), [f"u{number}" for number in range(USERS)]
    for round_ in range(5 if proving else 1):
        user = f"{FORGOTTEN}-{round_}"
        with running(settings, None):
            # Some files with the user are merged by now, others while they are forgotten.
            for _ in range(8):
                sent.some([user, *others], 10)
                wait_until(lambda: committed(settings) >= sent.messages)
            with sent.keep_coming(others):
                wait_until(merged_again(ledger))
                antenna("forget-user", user, "--yes")
                wait_until(merged_again(ledger))
            wait_until(lambda: committed(settings) >= sent.messages)
        assert kept_with(ledger, Path(settings.lake_uri), user) == set()
        pseudonyms = [
            name for name in live(ledger, "bytes_agg_user", "id", "sum_user_bytes") if name not in sent.good
        ]
        assert len(pseudonyms) == 1
        sent.good[pseudonyms[0]] = sent.good.pop(user)
    assert named_by_the_ledger(settings) == held_by_the_broker(settings)
    assert_sums(ledger, sent.good)
