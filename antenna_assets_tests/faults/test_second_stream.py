"""proofs.md, row 5: a second stream ends at once with a clear message, and the first one goes on, exact."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from antenna_assets.settings import Settings
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.live import committed, running, wait_until
from antenna_assets_tests.faults.runs import LIVE_STREAM, STREAM, run, send
from antenna_assets_tests.stream_engines import EACH_ENGINE_IN_THE_LONG_FORM

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.services


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_5_a_second_stream_ends_within_10_seconds_and_says_why(
    settings: Settings,
    stream_spark: "SparkSession | None",
    tmp_path: Path,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    answers = tmp_path / "answers.json"
    times: list[float] = []
    with running(settings, stream_spark) as said:
        for number in range(1, 6 if proving else 2):
            send(settings, answers, seed=number, events=400)
            wait_until(lambda number=number: committed(settings) >= 400 * number - 399)
            for second in (LIVE_STREAM, STREAM):
                began = time.monotonic()
                code, message = run(settings, second)
                times.append(time.monotonic() - began)
                assert code == 1, message
                assert "another stream is running on this ledger" in " ".join(message.split())
                assert "Traceback" not in message
        wait_until(lambda: committed(settings) == 400 * number)
    # The first one did not notice.
    assert not any(line.startswith("waiting") for line in said), said
    assert_exact(settings, answers)
    record_property("second streams refused", len(times))
    record_property("refused after, longest, s", round(max(times), 1))
    assert max(times) < 10
