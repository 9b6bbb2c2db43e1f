"""The instants between which events are accepted, and the hours that take no more."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from antenna_assets.streaming.verdicts.instants import micros_of

AHEAD = timedelta(minutes=5)
"""How far ahead of the clock an event may be."""

HOUR_MICROS = 3_600_000_000


@dataclass(frozen=True)
class Bounds:
    """The bounds of a batch; all its verdicts use the same.

    Attributes:
        clock: PostgreSQL's clock, aware; an event more than five minutes ahead of it is in the future.
        oldest: the oldest event time to accept, aware.
        full: hours that take no more events, see `ledger/full_hours.py`.
        oldest_micros: the oldest event time, in microseconds since 1970.
        newest_micros: the newest one.
        full_hours: the full hours, in hours since 1970.

    Raises:
        ValueError: an instant has no time zone.
    """

    clock: datetime
    oldest: datetime
    full: Collection[datetime] = ()
    oldest_micros: int = field(init=False)
    newest_micros: int = field(init=False)
    full_hours: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "oldest_micros", micros_of(self.oldest))
        object.__setattr__(self, "newest_micros", micros_of(self.clock + AHEAD))
        full = frozenset(micros_of(hour) // HOUR_MICROS for hour in self.full)
        object.__setattr__(self, "full_hours", full)
