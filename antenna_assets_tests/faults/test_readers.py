"""proofs.md, row 17: who polls an hour that is replaced again and again, by workers that are killed, never sees a part of it."""

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial as bound
from pathlib import Path

import pytest

from antenna_assets import failpoints as crash
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.settings import Settings
from antenna_assets.simulator.answers_file import read_answers
from antenna_assets.simulator.run import AnswersFile, simulate
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.simulator.send import Target
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.live import wait_until
from antenna_assets_tests.faults.plain_stream import MESSAGES_PER_BATCH, read_everything
from antenna_assets_tests.faults.publish import publish_hour
from antenna_assets_tests.faults.readers import (
    COLUMNS,
    LAKE,
    NOTHING,
    Reader,
    View,
    expected,
    of_lake,
    of_table,
    partial,
)
from antenna_assets_tests.faults.workers import Worker, new_stop, passages, publish_until

pytestmark = pytest.mark.services

# One batch, so that a generation holds all of a step or nothing of it.
LATE_EVENTS = MESSAGES_PER_BATCH


def test_row_17_a_reader_never_sees_a_part_of_an_hour_that_is_replaced(
    settings: Settings, tmp_path: Path, proving: bool, record_property: Callable[[str, object], None]
) -> None:
    answers, hour = tmp_path / "answers.json", hour_of(datetime.now(UTC) - timedelta(minutes=2)) - HOUR
    key, root, chance = hour_key(hour), settings.lake_uri, random.Random(17)
    whole: list[dict[str, View]] = [dict.fromkeys([*COLUMNS, *LAKE], NOTHING)]

    def send(events: int) -> None:
        simulate(
            settings,
            Scenario(
                events, seed=len(whole), start=hour, hours=1, unknown_users=0.05, antennas=400, users=100
            ),
            Target(settings.kafka_bootstrap or "", settings.topic),
            answers=AnswersFile(answers, append=answers.exists()),
        )
        whole.append(expected(read_answers(answers), hour))
        read_everything(settings)

    send(2_000)
    points = sorted(point for point in crash.POINTS if point.startswith("publish."))
    stop, kills, woken = new_stop(), 0, 0
    with ExitStack() as stack:
        looks: dict[str, Callable[[], View]] = {
            table: bound(of_table, stack.enter_context(connect(settings.postgres_url or "")), table, hour)
            for table in COLUMNS
        }
        looks |= {table: bound(of_lake, root, table, hour) for table in LAKE}
        readers = {table: stack.enter_context(Reader(look)) for table, look in looks.items()}
        steady = stack.enter_context(Worker(settings, tmp_path / "steady", publish_until, stop, key))
        end = time.monotonic() + (150 if proving else 5)
        while time.monotonic() < end or kills + woken < 3:
            send(LATE_EVENTS)
            point = chance.choice(points)
            step = f"{point}:{chance.randint(1, passages(point))}:pause"
            with Worker(
                settings, tmp_path / f"worker-{len(whole)}", publish_hour, key, crash_at=step
            ) as worker:
                if not worker.pauses():
                    # The steady one has sealed or certified the generation, so that there was nothing to pause at.
                    worker.must_succeed()
                    continue
                # What it has half done is there to be seen for a few polls.
                time.sleep(0.3)
                if chance.random() < 0.25:
                    woken += 1
                    worker.wake()
                    worker.must_succeed()
                else:
                    kills += 1
                    worker.kill()
        stop.set()
        steady.must_succeed()
        publish_hour(key)
        polls = {table: reader.polls for table, reader in readers.items()}
        wait_until(lambda: all(reader.polls >= polls[table] + 2 for table, reader in readers.items()))
    parts = {
        table: partial(reader.seen, [step[table] for step in whole]) for table, reader in readers.items()
    }
    with connect(settings.postgres_url or "") as connection:
        (replaced,) = connection.execute("SELECT count(*) FROM ledger.publication").fetchone() or (0,)
    record_property("polls", sum(reader.polls for reader in readers.values()))
    record_property("changes that readers saw", sum(len(reader.seen) - 1 for reader in readers.values()))
    record_property("replacements of the hour", replaced)
    record_property("generations", len(whole) - 1)
    record_property("kills", kills)
    record_property("paused workers that woke up", woken)
    record_property("partial hours", sum(map(len, parts.values())))
    # Rows and bytes say enough.
    assert {table: [view[:2] for view in found] for table, found in parts.items() if found} == {}
    assert all(reader.seen[-1] == whole[-1][table] for table, reader in readers.items())
    assert all(len(reader.seen) > 1 for reader in readers.values())
    assert_exact(settings, answers, published=True)
