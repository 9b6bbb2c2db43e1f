"""What is simulated: a validated scenario, the users with their quotas, the antennas and the apps."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from antenna_assets.errors import AntennaError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
APPS = ("SKYPE", "FACETIME", "FACEBOOK", "TELEGRAM", "WHATSAPP")
SHARES = ("late", "malformed", "future", "unknown_users")
"""The scenario's fields that are shares of its messages."""

_SEED = {
    "andres": 200_000,
    "paco": 300_000,
    "juan": 100_000,
    "fede": 5_000,
    "gorka": 200_000,
    "luis": 200_000,
    "eric": 300_000,
    "carlos": 100_000,
    "david": 300_000,
    "juanchu": 300_000,
    "charo": 300_000,
    "delicidas": 1_000_000,
    "milagros": 200_000,
    "antonio": 1_000_000,
    "sergio": 1_000_000,
    "maria": 1_000_000,
    "cristina": 300_000,
    "lucia": 300_000,
    "carlota": 200_000,
    "emilio": 200_000,
}
"""The 20 users of `sql/seed/users.csv` with their quotas; a test keeps the two equal."""


class ScenarioError(AntennaError):
    """A scenario is invalid; the message says what was expected and what was found."""


class User(NamedTuple):
    """A row of `user_metadata`. `quota` is in bytes per hour."""

    id: str
    name: str
    email: str
    quota: int


def users(count: int) -> list[User]:
    """Return the first `count` users: the 20 of `sql/seed/users.csv`, then others with the same quotas."""
    seed = list(_SEED.items())
    rows = []
    for number in range(count):
        name, quota = seed[number % len(seed)]
        if number < len(seed):
            email = f"{name}@gmail.com"
        else:
            name = f"user{number + 1}"
            email = f"{name}@example.com"
        rows.append(User(f"00000000-0000-0000-0000-{number + 1:012d}", name, email, quota))
    return rows


def antennas(count: int) -> list[str]:
    """Return the ids of the first `count` antennas, from `00000000-1111-1111-1111-111111111111` up."""
    return [f"00000000-1111-1111-1111-{111111111111 + number:012d}" for number in range(count)]


UNKNOWN_USERS = tuple(f"ffffffff-ffff-ffff-ffff-{number:012d}" for number in range(1, 9))


@dataclass(frozen=True)
class Scenario:
    """What to simulate.

    Args:
        events: number of messages, good and bad.
        seed: another seed is another day with the same habits.
        start: the first simulated instant, a full hour in UTC.
        hours: number of hours that the events spread over.
        late: share of events that arrive one minute to two hours late, never from before `start`.
        malformed: share of messages that violate the event's contract.
        future: share of messages with a timestamp in the year 2999.
        unknown_users: share of events of users that `user_metadata` does not have.
        users, antennas: number of each; users beyond 20 are unknown unless `users(n)` are inserted.
        apps: names of the apps.

    Raises:
        ScenarioError: a value is invalid.
    """

    events: int
    seed: int
    start: datetime
    hours: int
    late: float = 0.0
    malformed: float = 0.0
    future: float = 0.0
    unknown_users: float = 0.0
    users: int = 20
    antennas: int = 5
    apps: tuple[str, ...] = APPS

    def __post_init__(self) -> None:
        for name, least in (("events", 0), ("hours", 1), ("users", 1), ("antennas", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ScenarioError(f"{name}: expected a whole number of at least {least}, found {value!r}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ScenarioError(f"seed: expected a whole number, found {self.seed!r}")
        if self.start.tzinfo is None:
            raise ScenarioError(
                f"start: expected an instant with a time zone, found {self.start.isoformat()}"
            )
        start = self.start.astimezone(UTC)
        if start != start.replace(minute=0, second=0, microsecond=0):
            raise ScenarioError(f"start: expected a full hour in UTC, found {start.isoformat()}")
        if start < EPOCH or self.hours > (datetime.max.replace(tzinfo=UTC) - start) // timedelta(hours=1):
            raise ScenarioError(
                f"start, hours: expected the years 1970 to 9999, found {start.isoformat()} and {self.hours}"
            )
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "apps", tuple(self.apps))
        for name in SHARES:
            share = getattr(self, name)
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ScenarioError(f"{name}: expected a share from 0 to 1, found {share!r}")
        total = sum(getattr(self, name) for name in SHARES)
        if total > 1 + 1e-9:
            raise ScenarioError(
                f"{', '.join(SHARES)}: expected shares that add up to at most 1, found {total:g}"
            )
        for app in self.apps:
            if not app.strip() or "\0" in app or len(app.encode()) > 256:
                raise ScenarioError(f"apps: expected names of 1 to 256 bytes without NUL, found {app!r}")
        if not self.apps or len(set(self.apps)) < len(self.apps):
            raise ScenarioError(f"apps: expected at least one name and none twice, found {self.apps!r}")

    @property
    def end(self) -> datetime:
        """The end of the simulated hours, exclusive."""
        return self.start + timedelta(hours=self.hours)

    def require_within(self, oldest: datetime, now: datetime) -> None:
        """Raise ScenarioError if the stream would reject events as older than `oldest` or after `now`."""
        if self.start < oldest:
            raise ScenarioError(
                f"start: events before {oldest.isoformat()} are rejected as too old,"
                f" found {self.start.isoformat()}"
            )
        if self.end > now + timedelta(minutes=5):
            raise ScenarioError(
                f"start, hours: expected hours that have ended by {now.isoformat()}, found an end at"
                f" {self.end.isoformat()}; events in the future are rejected"
            )
