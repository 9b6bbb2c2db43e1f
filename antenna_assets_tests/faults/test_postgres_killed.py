"""proofs.md, row 8: PostgreSQL is killed and stays away; the stream waits, says so once, goes on by itself, and does not grow."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from antenna_assets.settings import Settings
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.live import committed, wait_until
from antenna_assets_tests.faults.own_services import own_postgres
from antenna_assets_tests.faults.processes import Process
from antenna_assets_tests.faults.runs import LIVE_STREAM, send

pytestmark = pytest.mark.services

MB = 1 << 20


def test_row_8_postgresql_is_killed_and_away_for_long_and_the_stream_goes_on_and_did_not_grow(
    kafka: str,
    topic: str,
    tmp_path: Path,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    answers = tmp_path / "answers.json"
    away = 120 if proving else 5
    with own_postgres() as postgres:
        settings = Settings(home=tmp_path, postgres_url=postgres.url, kafka_bootstrap=kafka, topic=topic)
        send(settings, answers, seed=1, events=500)
        with Process(settings, LIVE_STREAM) as stream:
            wait_until(lambda: committed(settings) == 500)
            began = time.monotonic()
            killed = postgres.kill()
            wait_until(lambda: "waiting: PostgreSQL" in stream.said)
            noticed = time.monotonic() - began
            before = stream.memory()
            send(settings, answers, seed=2, events=500)
            time.sleep(max(0, began + away - time.monotonic()))
            after = stream.memory()
            postgres.start()
            back = time.monotonic()
            wait_until(lambda: committed(settings) == 1_000)
            recovered = time.monotonic() - back
            wait_until(lambda: "resuming from the ledger" in stream.said)
            stream.stop()
            assert stream.wait(60) == 0, stream.said
            said = stream.said
        assert said.count("waiting:") == 1, said
        assert "Traceback" not in said
        assert_exact(settings, answers)
    record_property("processes of PostgreSQL killed", killed)
    record_property("PostgreSQL away, s", away)
    record_property("said that it waits after, s", round(noticed, 1))
    record_property("first commit after PostgreSQL's start, s", round(recovered, 1))
    for name, first, last in zip(("Python", "Java"), before, after, strict=True):
        record_property(f"memory of {name} when the wait began, MB", round(first / MB))
        record_property(f"memory of {name} when the wait ended, MB", round(last / MB))
        # Nothing is read while it waits: what each failed attempt leaves behind would show.
        assert last - first < 64 * MB, f"{name} grew from {first / MB:.0f} to {last / MB:.0f} MB"
