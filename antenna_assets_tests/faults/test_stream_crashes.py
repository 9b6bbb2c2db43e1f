"""proofs.md, row 1: the stream is killed at each of its commit points, Python or Java, and nothing is lost or doubled.

In the suite a few points are passed with real Spark, the others with the stream that needs none; `kill_at_every_point`
is the long form, which passes all of them with Spark.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

from antenna_assets.settings import Settings
from antenna_assets_tests.exactness import assert_exact, assert_whole
from antenna_assets_tests.faults.runs import PLAIN_STREAM, STREAM, crash, finish, run, send

pytestmark = pytest.mark.services

JAVA_POINTS = ("stream.jvm.task",)
WITHOUT_SPARK = (
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
POINTS = {*WITHOUT_SPARK, *IN_THE_SUITE_WITH_SPARK}


def kill_at_every_point(settings: Settings, answers: Path, points: Iterable[str]) -> int:
    """Send, die at a point, send more, die at the next; then read to the end. Returns the number of kills."""
    kills = 0
    for seed, point in enumerate(points):
        send(settings, answers, seed=seed, events=300)
        if point in JAVA_POINTS:
            code, said = run(settings, STREAM, crash_at=point)
            assert code == 1, said
            assert "Spark's Java process ended" in said
            assert "Traceback" not in said
        else:
            crash(settings, STREAM, point)
        assert_whole(settings)
        kills += 1
    finish(settings, STREAM)
    assert_exact(settings, answers)
    assert list((settings.home / "checkpoints").iterdir()) == []
    return kills


def test_row_1_killed_with_spark_at_a_point_and_in_a_task_of_java_the_stream_is_exact(
    settings: Settings, tmp_path: Path
) -> None:
    assert kill_at_every_point(settings, tmp_path / "answers.json", IN_THE_SUITE_WITH_SPARK) == 3


@pytest.mark.parametrize("point", WITHOUT_SPARK)
def test_row_1_killed_at_a_point_the_ledger_and_the_lake_are_exact(
    settings: Settings, tmp_path: Path, point: str
) -> None:
    answers = tmp_path / "answers.json"
    send(settings, answers)
    # The second batch: the first one's rows are there to be damaged.
    crash(settings, PLAIN_STREAM, point if "heartbeat" in point else f"{point}:2")
    assert assert_whole(settings) in (400, 800, 1_000)
    finish(settings, PLAIN_STREAM)
    assert_exact(settings, answers)
