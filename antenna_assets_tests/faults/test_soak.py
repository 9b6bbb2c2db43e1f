"""proofs.md, row 2: while messages keep coming, the stream is killed at random moments and started again; nothing is lost."""

import itertools
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median, quantiles

import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.settings import Settings
from antenna_assets_tests.exactness import assert_exact, held_by_the_broker
from antenna_assets_tests.faults.live import repeated, wait_until
from antenna_assets_tests.faults.processes import Process, Whom
from antenna_assets_tests.faults.runs import LIVE_STREAM, STREAM, send
from antenna_assets_tests.stream_engines import EACH_ENGINE_IN_THE_LONG_FORM

pytestmark = pytest.mark.services

SEED = 20261124
MESSAGES_A_SECOND = 400
WHOM: tuple[Whom, ...] = ("python", "java", "both")


def messages_keep_coming(settings: Settings, answers: Path) -> AbstractContextManager[None]:
    """Send in another thread, a second's messages at a time, until the block ends."""
    seeds = itertools.count(1)
    return repeated(
        lambda: send(settings, answers, seed=next(seeds), events=MESSAGES_A_SECOND, rate=MESSAGES_A_SECOND)
    )


def newest_batch(settings: Settings) -> int:
    with connect(settings.postgres_url or "") as connection:
        (batch,) = connection.execute("SELECT max(batch) FROM ledger.batch").fetchone() or (None,)
    return batch or 0


@dataclass
class Soak:
    """What was done: kills by who died, and the seconds from a restart to its first batch."""

    kills: dict[Whom, int] = field(default_factory=lambda: dict.fromkeys(WHOM, 0))
    before_a_commit: int = 0
    first_commits: list[float] = field(default_factory=list)


def kill_at_random(settings: Settings, kills: int, done: Soak, random: Random) -> None:
    """Start the stream and kill it, again and again."""
    # Each of the three as often, in an order that the seed gives. The embedded reader is one process.
    victims = WHOM if settings.stream_engine == "spark" else ("python",)
    order = [victims[number % len(victims)] for number in range(kills)]
    random.shuffle(order)
    with ExitStack() as started:
        for number, whom in enumerate(order):
            before = newest_batch(settings)
            began = time.monotonic()
            # One in five dies while it starts.
            early = random.random() < 0.2
            patience = began + (random.uniform(0.5, 8) if early else 180)
            # Java outlives a Python that was killed by two seconds: the next start comes at once and must cope.
            process = started.enter_context(Process(settings, LIVE_STREAM))
            while newest_batch(settings) == before and time.monotonic() < patience:
                assert process.code is None, process.said
                time.sleep(0.05)
            if newest_batch(settings) > before:
                if number:
                    done.first_commits.append(time.monotonic() - began)
                time.sleep(random.uniform(0, 6))
            else:
                assert early, f"no batch within 3 minutes of a start: {process.said}"
                done.before_a_commit += 1
            if whom == "java":
                wait_until(lambda process=process: process.java() != [])
            process.kill(whom)
            done.kills[whom] += 1
            # A stream whose Java is gone ends by itself.
            wait_until(lambda process=process: process.code is not None)
            assert process.code == (1 if whom == "java" else -signal.SIGKILL), process.said


@EACH_ENGINE_IN_THE_LONG_FORM
@pytest.mark.timeout(1_500)
def test_row_2_killed_at_random_moments_while_messages_keep_coming_the_stream_is_exact(
    settings: Settings, tmp_path: Path, proving: bool, record_property: Callable[[str, object], None]
) -> None:
    answers = tmp_path / "answers.json"
    done = Soak()
    with messages_keep_coming(settings, answers):
        kill_at_random(settings, 26 if proving else 2, done, Random(SEED))
        before, began = newest_batch(settings), time.monotonic()
        # Messages come still: it has something to commit at once.
        last = Process(settings, STREAM)
    with last as process:
        while newest_batch(settings) == before:
            assert process.code is None, process.said
            time.sleep(0.05)
        done.first_commits.append(time.monotonic() - began)
        assert process.wait(120) == 0, process.said
    assert_exact(settings, answers)
    record_property("kills", sum(done.kills.values()))
    for whom, count in done.kills.items():
        record_property(f"kills of {whom}", count)
    record_property("kills before the first commit", done.before_a_commit)
    record_property("messages", len(held_by_the_broker(settings)))
    record_property("first commit after a restart, median, s", round(median(done.first_commits), 1))
    p95 = quantiles(done.first_commits, n=20, method="inclusive")[-1]
    record_property("first commit after a restart, p95, s", round(p95, 1))
    record_property("first commit after a restart, longest, s", round(max(done.first_commits), 1))
    if proving:
        assert p95 <= (30 if settings.stream_engine == "spark" else 3)
