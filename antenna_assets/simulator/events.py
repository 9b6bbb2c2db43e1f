"""Simulated traffic: a scenario gives the same messages, byte for byte, on every machine and Python version.

Pure: no clock, no Kafka, no files. It uses only `random.Random.random()`, whose sequence Python guarantees,
    integers
and single IEEE operations: `sin` or `log` may differ in the last bit between platforms.
"""

import json
from bisect import bisect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

from antenna_assets.simulator.crowd import FLOOR, FUTURE, LATE, UNKNOWN, Crowd, Deck, messages_per_hour
from antenna_assets.simulator.event_json import PLAIN, SECOND, event_fields, event_text
from antenna_assets.simulator.malformed import malformed
from antenna_assets.simulator.scenario import (
    EPOCH,
    UNKNOWN_USERS,
    Scenario,
    ScenarioError,
    User,
    antennas,
    users,
)

__all__ = ["Event", "Message", "Scenario", "ScenarioError", "User", "antennas", "messages", "users"]

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

_CHUNK = 10_000
_YEAR_2999 = (datetime(2999, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


class Event(NamedTuple):
    """A transfer as the pipeline must store it. `timestamp` is in microseconds since 1970, UTC."""

    timestamp: int
    app: str
    id: str
    antenna_id: str
    bytes: int


class Message(NamedTuple):
    """A Kafka message, with the event it carries or the reason for which it must be rejected."""

    key: bytes | None
    value: bytes | None
    event: Event | None
    reason: str | None


def messages(scenario: Scenario) -> Iterator[Message]:
    """Yield the scenario's messages in the order in which they are sent, exactly `scenario.events` of them.

    Timestamps are within the scenario's hours (except the future ones) and mostly ascending: a good event is
    at most two seconds out of order. Every hour about a quarter of the users exceed their quota.
    """
    random = Random(f"messages {scenario.seed}").random
    crowd = Crowd(scenario)
    deck = Deck(scenario)
    cumulative, ids, keys = crowd.cumulative, crowd.ids, crowd.keys
    last = len(ids) - 1
    places = antennas(scenario.antennas)
    apps = scenario.apps
    # The JSON text between the quotes: names are escaped once, not for each message.
    app_texts = [json.dumps(app, ensure_ascii=False)[1:-1] for app in apps]
    combinations = len(apps) * len(places)
    make = tuple.__new__
    begin = (scenario.start - EPOCH) // timedelta(microseconds=1)
    bad = 0
    for hour, count in enumerate(messages_per_hour(scenario)):
        hour_begin = begin + hour * HOUR
        scale = crowd.scales(hour, count)
        for first in range(0, count, _CHUNK):
            size = min(_CHUNK, count - first)
            for place, kind in enumerate(deck.deal(size, random), start=first):
                # Even steps with a jitter of up to two seconds back, as by queues on the way to Kafka.
                time = (
                    hour_begin + (place * HOUR + int(random() * HOUR)) // count - int(random() * 2 * SECOND)
                )
                if time < hour_begin:
                    time = hour_begin
                user = bisect(cumulative, random(), 0, last)
                pick = int(random() * combinations)
                app = pick % len(apps)
                antenna = places[pick // len(apps)]
                size_of = random()
                amount = int(scale[user] * (size_of * size_of + FLOOR) + random())
                style = random()
                id_ = ids[user]
                key = keys[user]
                if kind:
                    if kind == LATE:
                        time = _earlier(time, begin, random())
                        amount = int(
                            crowd.scale_at((time - begin) // HOUR)[user] * (size_of * size_of + FLOOR)
                            + random()
                        )
                    elif kind == UNKNOWN:
                        id_ = UNKNOWN_USERS[int(random() * len(UNKNOWN_USERS))]
                        key = id_.encode()
                        amount = int(size_of * size_of * 100_000)
                    elif kind == FUTURE:
                        time = _YEAR_2999 + int(random() * 300 * 24 * HOUR)
                        _, text = event_text(style, time, amount, app_texts[app], id_, antenna)
                        yield Message(key, text.encode(), None, "timestamp_in_future")
                        continue
                    else:
                        value, reason = malformed(
                            bad, event_fields(amount, str(time // SECOND), app_texts[app], id_, antenna)
                        )
                        bad += 1
                        yield Message(key, value, None, reason)
                        continue
                if style < PLAIN:
                    second = time // SECOND
                    time = second * SECOND
                    # The text of `json_object`, three times as fast.
                    text = (
                        f'{{"bytes":{amount},"timestamp":{second},"app":"{app_texts[app]}",'
                        f'"id":"{id_}","antenna_id":"{antenna}"}}'
                    )
                else:
                    time, text = event_text(style, time, amount, app_texts[app], id_, antenna)
                event = make(Event, (time, apps[app], id_, antenna, amount))
                yield make(Message, (key, text.encode(), event, None))


def _earlier(time: int, begin: int, share: float) -> int:
    """Return an instant one minute to two hours before `time`, but not before `begin`."""
    elapsed = time - begin
    if elapsed <= MINUTE:
        return begin + int(share * elapsed)
    return time - MINUTE - int(share * (min(elapsed, 2 * HOUR) - MINUTE))
