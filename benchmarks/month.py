"""A month of hours as the stream lands them: landed once, and copied for each case that publishes it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter

from antenna_assets.domain.hours import HOUR
from benchmarks.landing import land_hours
from benchmarks.world import copied, fresh, last_full_hour

EVENTS, USERS, HOURS = 100_000, 20_000, 744
"""Events of each hour, users, and hours."""


@dataclass(frozen=True)
class Month:
    """Hours that have landed and closed, and of which none is published.

    Attributes:
        services: the environment of `world.world`.
        landed: the environment with the ledger and lake that nobody changes.
        first: the first of the `hours`.
        users: how many there are.
    """

    services: dict[str, str]
    landed: dict[str, str]
    first: datetime
    hours: int
    users: int

    def copy(self, folder: Path) -> dict[str, str]:
        """Return the environment of a copy of its own."""
        return copied(self.services, self.landed, folder)


def land_month(services: dict[str, str], folder: Path, *, short: bool, say: Callable[[str], None]) -> Month:
    """Land a month; four small hours in the short form.

    Args:
        folder: stays until the last case has ended.
    """
    hours, events, users = (4, 1_000, 1_000) if short else (HOURS, EVENTS, USERS)
    first = last_full_hour() - (hours - 1) * HOUR
    say(f"landing {hours} hours")
    began = perf_counter()
    landed = fresh(services, folder)
    land_hours(landed, first=first, hours=hours, events=events, users=users)
    say(f"landed {hours} hours in {perf_counter() - began:.0f} s")
    return Month(services, landed, first, hours, users)
