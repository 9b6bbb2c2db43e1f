"""Who sends how much and when: the habits of users, the rhythm of the day, the mix of good and bad messages.

Pure arithmetic on random numbers; the messages themselves are made in `events`.
"""

from collections.abc import Callable
from itertools import accumulate
from random import Random

from antenna_assets.simulator.scenario import SHARES, Scenario, users

GOOD, LATE, MALFORMED, FUTURE, UNKNOWN = range(5)
"""The kinds of messages: the scenario's shares in their order, after the good ones."""

FLOOR = 1 / 9
"""For u from 0 to 1, 2.25 * (u * u + FLOOR) has mean 1 and minimum 1/4: many small events, few large ones."""

_RHYTHM = (4, 3, 3, 2, 2, 3, 5, 8, 10, 11, 11, 12, 13, 13, 12, 11, 11, 12, 14, 16, 17, 15, 11, 7)
"""Traffic by hour of the day in UTC: low at night, highest in the evening."""


def messages_per_hour(scenario: Scenario) -> list[int]:
    """Return how many messages are sent in each hour."""
    weights = [_RHYTHM[(scenario.start.hour + hour) % 24] for hour in range(scenario.hours)]
    ends = [scenario.events * weight // sum(weights) for weight in accumulate(weights)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


class Crowd:
    """The users and their traffic: a few cause most of it, and every hour others exceed their quota."""

    def __init__(self, scenario: Scenario) -> None:
        random = Random(f"crowd {scenario.seed}").random
        everyone = users(scenario.users)
        # Fisher-Yates by hand: the sequence of `shuffle` is not guaranteed between versions of Python.
        for place in range(len(everyone) - 1, 0, -1):
            other = int(random() * (place + 1))
            everyone[place], everyone[other] = everyone[other], everyone[place]
        weights = [1 / (rank + 4) for rank in range(len(everyone))]
        # Not `sum`: Python 3.12 changed how it rounds floats.
        cumulative = list(accumulate(weights))
        total = cumulative[-1]
        self.ids = [user.id for user in everyone]
        self.keys = [user.id.encode() for user in everyone]
        self.cumulative = [weight / total for weight in cumulative]
        self._weights = [weight / total for weight in weights]
        self._quotas = [user.quota for user in everyone]
        self._seed = scenario.seed
        self._good = 1 - scenario.malformed - scenario.future - scenario.unknown_users
        self._scales: dict[int, list[float]] = {}

    def scales(self, hour: int, messages: int) -> list[float]:
        """Return by user the scale of an event's bytes in this hour: an event has `scale * (u * u + FLOOR)`
        bytes.

        The usage of a user is chosen first, four to eight times the quota or at most half of it, and divided
        by the number of events that are expected of the user: so the shares hold for any number of events.
        """
        random = Random(f"hour {hour} {self._seed}").random
        expected = messages * self._good
        scales = []
        for rank, (weight, quota) in enumerate(zip(self._weights, self._quotas, strict=True)):
            # One of four neighbours in rank exceeds its quota, so that there are heavy and light ones every
            # hour.
            if rank % 4 == 0:
                over = rank + int(random() * 4)
            if rank == over:
                scales.append(2.25 * quota * (4 + 4 * random()) / max(expected * weight, 1.0))
            else:
                # As for at least four events: one more than expected must not be enough to exceed the quota.
                scales.append(2.25 * quota * (0.05 + 0.45 * random()) / max(expected * weight, 4.0))
        self._scales[hour] = scales
        self._scales.pop(hour - 3, None)
        return scales

    def scale_at(self, hour: int) -> list[float]:
        """Return the scales of one of the last three hours."""
        return self._scales[hour]


class Deck:
    """The kinds of all messages, dealt in shuffled chunks: each kind occurs exactly as often as requested."""

    def __init__(self, scenario: Scenario) -> None:
        self.counts = [0] * 5
        share, dealt = 0.0, 0
        for kind, name in enumerate(SHARES, start=LATE):
            # Rounded as a running total, so that the kinds never add up to more than all messages.
            share += getattr(scenario, name)
            end = min(scenario.events, round(share * scenario.events))
            self.counts[kind] = end - dealt
            dealt = end
        self.counts[GOOD] = scenario.events - dealt

    def deal(self, size: int, random: Callable[[], float]) -> bytearray:
        """Return the kinds of the next `size` messages."""
        total = sum(self.counts)
        shares = [count * size // total for count in self.counts]
        missing = size - sum(shares)
        for kind, count in enumerate(self.counts):
            extra = min(missing, count - shares[kind])
            shares[kind] += extra
            missing -= extra
            self.counts[kind] -= shares[kind]
        kinds = bytearray(b"".join(bytes([kind]) * share for kind, share in enumerate(shares)))
        good = shares[GOOD]
        # Fisher-Yates from the end, over the kinds other than good.
        for place in range(size - 1, good - 1, -1):
            other = int(random() * (place + 1))
            kinds[place], kinds[other] = kinds[other], kinds[place]
        return kinds
