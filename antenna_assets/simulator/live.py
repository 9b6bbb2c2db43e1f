"""Endless live traffic for a demonstration: the users of a scenario, with the present as timestamp.

It is not reproducible, so there are no answers to it.
"""

from bisect import bisect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Event as Stop

from antenna_assets.simulator.crowd import FLOOR, Crowd
from antenna_assets.simulator.event_json import SECOND, event_fields
from antenna_assets.simulator.events import Event, Message
from antenna_assets.simulator.malformed import json_object
from antenna_assets.simulator.scenario import EPOCH, Scenario, antennas


def _now() -> datetime:
    return datetime.now(UTC)


def live(
    rate: float, stop: Stop, *, seed: int = 1, users: int = 20, clock: Callable[[], datetime] = _now
) -> Iterator[Message]:
    """Yield good messages of the present, in whole seconds, until `stop` is set.

    Args:
        rate: messages per second at which they will be sent; usage per hour is scaled to the quotas by it.
        clock: returns the time, with a time zone.
    """
    random = Random(seed).random
    scenario = Scenario(0, seed, EPOCH, 1, users=users)
    crowd, places = Crowd(scenario), antennas(scenario.antennas)
    hour = None
    while not stop.is_set():
        time = (clock() - EPOCH) // timedelta(seconds=1)
        if time // 3600 != hour:
            hour = time // 3600
            scale = crowd.scales(hour, max(1, round(rate * 3600)))
        user = bisect(crowd.cumulative, random(), 0, len(crowd.ids) - 1)
        size_of = random()
        amount = int(scale[user] * (size_of * size_of + FLOOR) + random())
        app, antenna = (choices[int(random() * len(choices))] for choices in (scenario.apps, places))
        event = Event(time * SECOND, app, crowd.ids[user], antenna, amount)
        text = json_object(event_fields(amount, str(time), app, event.id, antenna))
        yield Message(crowd.keys[user], text.encode(), event, None)
