"""proofs.md, rows 7 and 8: the broker is killed under load, or away for a while; every acknowledged event is there once."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from antenna_assets.clients.kafka_broker import Broker
from antenna_assets.settings import Settings
from antenna_assets.simulator import send as sender
from antenna_assets.simulator.send import SendError
from antenna_assets_tests.exactness import assert_exact, held_by_the_broker
from antenna_assets_tests.faults.live import committed, running, wait_until
from antenna_assets_tests.faults.own_services import OwnKafka, own_kafka
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.processes import Process
from antenna_assets_tests.faults.runs import first_hour, send
from antenna_assets_tests.stream_engines import EACH_ENGINE_IN_THE_LONG_FORM

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.services

SEED = 20261124


@pytest.fixture(scope="module")
def broker() -> Iterator[OwnKafka]:
    """One for this module; a test leaves it running."""
    with own_kafka() as broker:
        yield broker


@pytest.fixture
def own(settings: Settings, broker: OwnKafka) -> Settings:
    return broker.settings(settings)


def simulate(answers: Path, *, events: int, rate: int) -> tuple[str, ...]:
    """`antenna simulate` as a user types it."""
    start = f"{first_hour(2):%Y-%m-%dT%H:00:00Z}"
    options = {"events": events, "seed": 7, "start": start, "hours": 2, "rate": rate, "answers": answers}
    shares = {"late": 0.02, "malformed": 0.02, "unknown-users": 0.01}
    pairs = [(f"--{name}", str(value)) for name, value in {**options, **shares}.items()]
    return ("antenna_assets.cli", "simulate", *(text for pair in pairs for text in pair))


def ends(settings: Settings) -> int:
    """How many messages the topic ever took."""
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    return sum(broker.next_offsets(broker.describe()).values())


def held(settings: Settings) -> int:
    return len(held_by_the_broker(settings))


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_7_the_broker_is_killed_under_load_and_every_acknowledged_event_is_there_once(
    own: Settings,
    broker: OwnKafka,
    stream_spark: "SparkSession | None",
    tmp_path: Path,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    answers = tmp_path / "answers.json"
    kills, rate = (5 if proving else 1), 1_000
    events = kills * (20 if proving else 12) * rate
    random = Random(SEED)
    away: list[float] = []
    command = (*simulate(answers, events=events, rate=rate), "--append")
    send(own, answers, events=500)
    with running(own, stream_spark) as said:
        wait_until(lambda: committed(own) == 500)
        with Process(own, command) as sending:
            for _ in range(kills):
                # In the middle: it takes messages again since the start before, and more are to come.
                before = ends(own)
                wait_until(lambda before=before: ends(own) > before + rate)
                time.sleep(random.uniform(0, 4))
                assert sending.code is None, (
                    f"expected to kill the broker while it is sent to: {sending.said}"
                )
                began = time.monotonic()
                broker.kill()
                broker.start()
                away.append(time.monotonic() - began)
            assert sending.wait(180) == 0, sending.said
            assert f"sent {events:,} messages, all acknowledged" in sending.said
        wait_until(lambda: committed(own) == 500 + events)
    # A short absence need not be seen at all. It is told twice if a commit that was under way ends in between.
    waiting = [line for line in said if line.startswith("waiting")]
    assert len(waiting) <= 2 * kills, said
    # No event twice, and none but those that were sent.
    assert held(own) == 500 + events
    assert_exact(own, answers)
    record_property("kills of the broker", kills)
    record_property("messages acknowledged", events)
    record_property("broker away, longest, s", round(max(away), 1))
    record_property("lines that the stream waits", len(waiting))


def test_row_7_a_broker_that_stays_away_is_an_error_that_says_how_many_were_acknowledged(
    own: Settings,
    broker: OwnKafka,
    tmp_path: Path,
    proving: bool,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    answers = tmp_path / "answers.json"
    # The long form waits for the minute that the sender gives a message.
    patience = sender.DELIVERY_SECONDS if proving else 10
    began = time.monotonic()
    if proving:
        with Process(own, simulate(answers, events=8_000, rate=1_000)) as sending:
            wait_until(lambda: ends(own) > 2_000)
            broker.kill()
            code = sending.wait(180)
            said = " ".join(sending.said.split())
        assert code == 1, said
        assert "Traceback" not in said
    else:
        monkeypatch.setattr(sender, "DELIVERY_SECONDS", patience)

        def kill_in_the_middle(count: int) -> None:
            if count == 3_000:
                # On a slow machine none may have arrived yet, and there is no middle.
                wait_until(lambda: ends(own) >= 3_000)
                broker.kill()

        with pytest.raises(SendError) as error:
            send(own, answers, events=5_000, rate=2_000, progress=kill_in_the_middle)
        said = str(error.value)
    took = time.monotonic() - began
    broker.start()
    found = re.search(
        r"acknowledged ([\d,]+) of ([\d,]+) messages, ([\d,]+) failed and ([\d,]+) are without an answer",
        said,
    )
    assert found is not None, said
    acknowledged, total, failed, unanswered = (int(one.replace(",", "")) for one in found.groups())
    assert 1_000 <= acknowledged < total
    assert acknowledged + failed + unanswered == total
    assert not answers.exists()
    # Those without an answer may be there; those with one are, and nothing is there twice.
    kept = held(own)
    assert acknowledged <= kept <= total
    read_everything(own)
    assert_exact(own)
    record_property("acknowledged before the broker died", acknowledged)
    record_property("sender ended after, s", round(took, 1))


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_8_kafka_is_away_for_seconds_and_the_stream_says_so_once_and_goes_on(
    own: Settings,
    broker: OwnKafka,
    stream_spark: "SparkSession | None",
    tmp_path: Path,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    answers = tmp_path / "answers.json"
    send(own, answers, seed=1, events=500)
    with running(own, stream_spark) as said:
        wait_until(lambda: committed(own) == 500)
        began = time.monotonic()
        broker.kill()
        wait_until(lambda: any(line.startswith("waiting") for line in said))
        noticed = time.monotonic() - began
        time.sleep(60 if proving else 0)
        away = time.monotonic() - began
        broker.start()
        back = time.monotonic()
        send(own, answers, seed=2, events=500)
        wait_until(lambda: committed(own) == 1_000)
        recovered = time.monotonic() - back
        wait_until(lambda: "resuming from the ledger" in said)
    waiting = [line for line in said if line.startswith("waiting")]
    assert len(waiting) == 1, said
    assert "Kafka" in waiting[0]
    assert_exact(own, answers)
    record_property("Kafka away, s", round(away, 1))
    record_property("said that it waits after, s", round(noticed, 1))
    record_property("first commit after Kafka's start, s", round(recovered, 1))
