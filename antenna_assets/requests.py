"""Which hours to ask for now: the policy of the sensor, as a pure function of what is to do and what was tried.

What is closed and published is in `ledger.py`; Dagster's runs are read and asked for in `sensors.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from antenna_assets.hours import contiguous, hour_key, range_of_hours
from antenna_assets.ledger import HourToPublish

HOURS_PER_RUN = 24
"""The most hours of a run, and of all the runs that one tick asks for."""

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=1)
MOST_ATTEMPTS = 10
"""After so many, some four hours, an hour is stuck: nobody asks for it again but a person, or rows that come later."""


@dataclass(frozen=True)
class Attempt:
    """An earlier request whose run has ended: for hours of batches up to `batch`."""

    hours: frozenset[datetime]
    batch: int
    run_id: str
    ended: datetime


@dataclass(frozen=True)
class Request:
    """Hours to run together. `after` is the end of the newest earlier attempt at one of them, if there was any."""

    hours: Sequence[datetime]
    batch: int
    after: datetime | None = None

    @property
    def name(self) -> str:
        """The hours, and the newest batch in them."""
        return f"{hour_key(self.hours[0])}..{hour_key(self.hours[-1])}@{self.batch}"

    @property
    def run_key(self) -> str:
        """Dagster spends a run key even if its run fails: each attempt has its own."""
        return self.name if self.after is None else f"{self.name}#{self.after:%Y%m%dT%H%M%S.%f}"


@dataclass(frozen=True)
class FailingHour:
    """An hour that was asked for and is still to do: how often, its last run, and when it is asked for again.

    `batch` is the newest one that the attempts were for.
    """

    hour: datetime
    batch: int
    attempts: int
    run_id: str
    ended: datetime
    next_attempt: datetime

    @property
    def stuck(self) -> bool:
        """Whether it is not asked for again."""
        return self.attempts >= MOST_ATTEMPTS


def hours_and_batch(name: str) -> tuple[frozenset[datetime], int]:
    """The inverse of `Request.name`."""
    hours, _, batch = name.rpartition("@")
    first, last = hours.split("..")
    return frozenset(range_of_hours(first, last)), int(batch)


def failing_hours(
    todo: Sequence[HourToPublish], attempts: Sequence[Attempt], known: Sequence[FailingHour] = ()
) -> dict[datetime, FailingHour]:
    """The hours that earlier attempts did not publish. Rows that came later start anew: they have a higher batch.

    Args:
        known: those of the last tick, of which the stuck ones stay so when their attempts are long ago.
    """
    stuck = {one.hour: one for one in known if one.stuck}
    found: dict[datetime, FailingHour] = {}
    for one in todo:
        tried = [of for of in attempts if one.hour in of.hours and of.batch >= one.up_to_batch]
        before = stuck.get(one.hour)
        if before is not None and before.batch >= one.up_to_batch:
            found[one.hour] = before
        elif tried:
            last = max(tried, key=lambda attempt: attempt.ended)
            # Not 2**attempts: after a month of failures that is no number any more.
            wait = min(FIRST_WAIT * 2 ** min(len(tried) - 1, 16), LONGEST_WAIT)
            batch = max(attempt.batch for attempt in tried)
            found[one.hour] = FailingHour(
                one.hour, batch, len(tried), last.run_id, last.ended, last.ended + wait
            )
    return found


def plan_requests(
    todo: Sequence[HourToPublish],
    *,
    running: frozenset[datetime],
    failing: Mapping[datetime, FailingHour],
    newest: datetime | None,
    now: datetime,
) -> list[Request]:
    """What to ask for now, oldest first, at most `HOURS_PER_RUN` hours.

    An hour that failed waits before it is asked for again, twice as long each time, and in ever smaller company: 24 hours,
    then 12, 6, 3, and alone. So one bad hour holds up its neighbours for some minutes and not for ever. The newest hour
    is asked for whatever waits before it: it is the one that people look at.

    Args:
        todo: hours with something to publish, ascending.
        running: hours that a run in progress covers; they are left to it.
        failing: those of `todo` that earlier attempts did not publish.
        newest: the newest closed hour.
    """
    batches = {one.hour: one.up_to_batch for one in todo}
    companies: dict[int, list[datetime]] = {}
    for hour in batches:
        tried = failing.get(hour)
        if hour in running or (tried is not None and (tried.stuck or now < tried.next_attempt)):
            continue
        attempts = 0 if tried is None else tried.attempts
        companies.setdefault(max(1, HOURS_PER_RUN >> attempts), []).append(hour)
    waiting = sum(map(len, companies.values()))
    groups = [group for longest, hours in companies.items() for group in contiguous(hours, longest)]
    chosen: list[list[datetime]] = []
    left = HOURS_PER_RUN
    if newest is not None and waiting > HOURS_PER_RUN and any(newest in group for group in groups):
        groups = [[hour for hour in group if hour != newest] for group in groups]
        chosen.append([newest])
        left -= 1
    for group in sorted(filter(None, groups)):
        chosen += [group[:left]] if left else []
        left -= len(group[:left])
    return [
        Request(
            group,
            max(batches[hour] for hour in group),
            max((failing[hour].ended for hour in group if hour in failing), default=None),
        )
        for group in sorted(chosen)
    ]
