"""proofs.md, row 1: the stream is killed at each of its commit points, Python or Java, and nothing is lost or doubled.

In the suite the embedded reader passes all of its points, and Spark those that it has alone. The long form passes all of both
readers, five times each, of Spark's with Python, Java and both killed.
"""

import random
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from antenna_assets import failpoints as crash_faults
from antenna_assets.settings import Settings
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.exactness import assert_exact, assert_whole, held_by_the_broker
from antenna_assets_tests.faults.runs import STREAM, finish, run, send
from antenna_assets_tests.java_homes import QUICK, java_home_with
from antenna_assets_tests.stream_engines import EMBEDDED, SPARK

pytestmark = pytest.mark.services

JAVA_POINTS = ("stream.jvm.task",)
OF_EVERY_READER = (
    "stream.land.before_sync",
    "stream.land.after_sync",
    "stream.commit.before",
    "stream.commit.offsets",
    "stream.commit.files",
    "stream.commit.live",
    "stream.commit.last_statement",
    "stream.commit.committed",
    "stream.heartbeat.last_statement",
    "stream.heartbeat.committed",
)
ONLY_WITH_SPARK = ("stream.land.before_write", "stream.before_sweep")
IN_THE_SUITE_WITH_SPARK = (*JAVA_POINTS, *ONLY_WITH_SPARK)
ONLY_EMBEDDED = ("stream.read", "stream.land.judged", "stream.land.accepted", "stream.land.written")
WITH_SPARK = {*OF_EVERY_READER, *IN_THE_SUITE_WITH_SPARK}
EMBEDDED_POINTS = (*ONLY_EMBEDDED, *OF_EVERY_READER)
POINTS = {*WITH_SPARK, *ONLY_EMBEDDED}


def kill(settings: Settings, crash_at: str) -> None:
    """Let the stream run into the crash, whoever dies of it."""
    code, said = run(settings, STREAM, crash_at=crash_at)
    fault = crash_faults.parse(crash_at).fault
    if fault == "java" or crash_at in JAVA_POINTS:
        # Python outlives its Java, and at the last points it has no more use for it.
        assert code in (0, 1), said
        assert code == 0 or "Spark's Java process ended" in said
        assert "Traceback" not in said
    else:
        assert code == -signal.SIGKILL, f"expected to be killed at {crash_at}, ended with {code}: {said}"


def kill_at_each(settings: Settings, answers: Path, crashes: Iterable[str]) -> None:
    """Send, die at a point, send more, die at the next."""
    for seed, crash_at in enumerate(crashes):
        send(settings, answers, seed=seed, events=300)
        kill(settings, crash_at)
        assert_whole(settings)


def read_to_the_end(stream: Stream, settings: Settings, answers: Path) -> int:
    """What a stream makes of what the killed ones left; the number of messages."""
    stream.read_available()
    assert_exact(settings, answers)
    assert list((settings.home / "checkpoints").iterdir()) == []
    return len(held_by_the_broker(settings))


def every_crash(round_: int) -> list[str]:
    """Each point with Python, Java and both killed, in an order that differs from round to round."""
    crashes = [f"{point}{whom}" for point in sorted(WITH_SPARK) for whom in ("", ":java", ":both")]
    return random.Random(round_).sample(crashes, len(crashes))


@SPARK
@pytest.mark.rounds(5)
@pytest.mark.timeout(1_800)
def test_row_1_killed_with_spark_at_a_point_and_in_a_task_of_java_the_stream_is_exact(
    settings: Settings,
    new_stream: Callable[..., Stream],
    another_world: Callable[[], AbstractContextManager[Settings]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    proving: bool,
    round_: int,
    record_property: Callable[[str, object], None],
) -> None:
    crashes = every_crash(round_) if proving else [*IN_THE_SUITE_WITH_SPARK, "stream.commit.before:java"]
    # A stream that is killed at once never has use for the best code, in the long form neither.
    monkeypatch.setenv("JAVA_HOME", str(java_home_with(tmp_path / "java", QUICK)))
    with another_world() as second, ThreadPoolExecutor(2) as pool:
        # Two streams, each with a ledger of its own, keep two cores busy.
        lanes = [
            (over, over.home / "answers.json", crashes[number::2])
            for number, over in enumerate((settings, second))
        ]
        list(pool.map(lambda lane: kill_at_each(*lane), lanes))
        messages = [read_to_the_end(new_stream(over), over, answers) for over, answers, _ in lanes]
    record_property("kills with Spark", len(crashes))
    record_property(
        "points", f"{len({crash_faults.parse(crash).point for crash in crashes})} of {len(WITH_SPARK)}"
    )
    record_property("messages", sum(messages))
    record_property("messages lost or doubled", 0)


@EMBEDDED
@pytest.mark.rounds(5)
@pytest.mark.timeout(900)
def test_row_1_killed_at_one_point_after_the_other_the_embedded_stream_is_exact(
    settings: Settings,
    tmp_path: Path,
    round_: int,
    record_property: Callable[[str, object], None],
) -> None:
    answers = tmp_path / "answers.json"
    # Each dies over the rows of those before it, which are there to be damaged.
    points = random.Random(round_).sample(EMBEDDED_POINTS, len(EMBEDDED_POINTS))
    kill_at_each(settings, answers, points)
    finish(settings, STREAM)
    assert_exact(settings, answers)
    record_property("kills", len(points))
