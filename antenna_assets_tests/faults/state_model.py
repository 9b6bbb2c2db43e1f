"""What the state machine of row 19 expects: every message that was sent, and what each generation of an hour must hold.

It shares no code with the pipeline, and touches no service.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

Coordinates = tuple[int, int]
"""Partition and offset."""

User = tuple[str, str, int]
"""Name, e-mail and quota."""

HOUR = timedelta(hours=1)
WINDOW = timedelta(minutes=5)
SINCE_EVER = datetime.min.replace(tzinfo=UTC)
TRANSFORM = """
import json

def transform(value):
    event = json.loads(value)
    return json.dumps({**event, "bytes": int(event["bytes"])}).encode()
"""
"""Mends the messages whose bytes are a text, and fails on those that are no JSON."""


@dataclass(frozen=True)
class Event:
    time: datetime
    app: str
    user: str
    antenna: str
    bytes: int

    @property
    def hour(self) -> datetime:
        return self.time.replace(minute=0, second=0, microsecond=0)

    @property
    def window(self) -> datetime:
        return self.time - (self.time - self.hour) % WINDOW

    def value(self, *, as_text: bool = False) -> bytes:
        """The message that Kafka gets; with `as_text` it is malformed in a way that the transformation mends."""
        size = str(self.bytes) if as_text else self.bytes
        return json.dumps(
            {
                "bytes": size,
                "timestamp": int(self.time.timestamp()),
                "app": self.app,
                "id": self.user,
                "antenna_id": self.antenna,
            }
        ).encode()


@dataclass(frozen=True)
class Message:
    """What was sent. `reason` is None if the stream must accept it; `event` is None if nothing can mend it."""

    value: bytes
    event: Event | None
    reason: str | None


@dataclass(frozen=True)
class Draft:
    """A message as Hypothesis draws it: `hour` is counted from the example's first hour."""

    hour: int
    second: int
    user: str
    antenna: str
    app: str
    bytes: int
    kind: str
    partition: int

    def message(self, first: datetime, now: datetime) -> Message:
        """The message. It is not from the future: the present hour's events are at most of now."""
        time = min(first + self.hour * HOUR + timedelta(seconds=self.second), now.replace(microsecond=0))
        event = Event(time, self.app, self.user, self.antenna, self.bytes)
        if self.kind == "hopeless":
            return Message(b"{" + event.value(), None, "not_json")
        if self.kind == "mendable":
            return Message(event.value(as_text=True), event, "wrong_type")
        return Message(event.value(), event, None)


@dataclass
class Model:
    """Everything that was sent, the users at each of their versions, and since when they had which quota.

    A change of a quota is the version of the users that it made, the instant, and the quota; None: no longer known.
    """

    messages: dict[Coordinates, Message] = field(default_factory=dict)
    users: dict[int, dict[str, User]] = field(default_factory=dict)
    quotas: dict[str, list[tuple[int, datetime, int | None]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for version, users in self.users.items():
            self.quotas |= {id_: [(version, SINCE_EVER, user[2])] for id_, user in users.items()}

    @property
    def users_version(self) -> int:
        return max(self.users)

    def change_user(self, id_: str, user: User | None, now: datetime) -> None:
        """The next version of the users: one is new or changed, or, for None, gone."""
        quota = None if user is None else user[2]
        if quota is not None or id_ in self.quotas:
            since = now if id_ in self.quotas else SINCE_EVER
            self.quotas.setdefault(id_, []).append((self.users_version + 1, since, quota))
        changed = dict(self.users[self.users_version])
        changed.pop(id_, None)
        if user is not None:
            changed[id_] = user
        self.users[self.users_version + 1] = changed

    def mendable(self, consumed: Iterable[Coordinates], replayed: Iterable[Coordinates]) -> set[Coordinates]:
        """Those of the consumed messages that a replay with the transformation must accept."""
        return {
            place
            for place in set(consumed) - set(replayed)
            if self.messages[place].reason is not None and self.messages[place].event is not None
        }

    def event(self, place: Coordinates) -> Event:
        found = self.messages[place].event
        assert found is not None
        return found

    def quota_of(self, user: str, hour: datetime, version: int) -> int | None:
        """The quota at the end of an hour, as a version of the users has it; None: none."""
        if user not in self.users[version]:
            return None
        return [quota for made, since, quota in self.quotas[user] if made <= version and since < hour + HOUR][
            -1
        ]

    def enriched(self, events: Mapping[Coordinates, Event], version: int) -> dict[Coordinates, tuple]:
        """Each event with the user's name and e-mail at a version of the users, and the quota of then."""
        users = self.users[version]
        return {
            place: (
                event,
                *users.get(event.user, (None, None))[:2],
                self.quota_of(event.user, event.hour, version),
            )
            for place, event in events.items()
        }

    def table(self, name: str, hour: datetime, events: Iterable[Event], version: int) -> set[tuple]:
        """The rows of an hourly table, without their date."""
        users = self.users[version]
        if name == "bytes_agg_antenna_1h":
            return set(_sums((event.antenna, event.bytes) for event in events).items())
        if name == "bytes_agg_app_1h":
            return set(_sums((event.app, event.bytes) for event in events).items())
        by_user = _sums((event.user, event.bytes) for event in events)
        if name == "bytes_agg_user_1h":
            return {(user, users[user][1] if user in users else None, sum_) for user, sum_ in by_user.items()}
        return self.over_quota(by_user, hour, version)

    def over_quota(self, by_user: Mapping[str, int], hour: datetime, version: int) -> set[tuple]:
        """Users whose bytes of an hour are above their quota of then, with e-mail, quota and bytes."""
        quotas = {user: self.quota_of(user, hour, version) for user in by_user}
        return {
            (user, self.users[version][user][1], quotas[user], sum_)
            for user, sum_ in by_user.items()
            if (quota := quotas[user]) is not None and sum_ > quota
        }

    @staticmethod
    def live(events: Iterable[Event]) -> dict[str, set[tuple]]:
        """The rows of the live tables."""
        found: dict[str, Counter] = defaultdict(Counter)
        for event in events:
            found["bytes_agg_antenna"][event.window, event.antenna] += event.bytes
            found["bytes_agg_user"][event.window, event.user] += event.bytes
            found["bytes_agg_app"][event.window, event.app] += event.bytes
        return {
            name: {(window, key, sum_) for (window, key), sum_ in sums.items()}
            for name, sums in found.items()
        }


def first_hour(now: datetime) -> datetime:
    """Three hours before the present one: the events of an example are of these four."""
    return now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) - 3 * HOUR


def _sums(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for key, bytes_ in pairs:
        # Not `+=` alone: a key with no bytes has its row, too.
        sums[key] = sums[key] + bytes_
    return dict(sums)
