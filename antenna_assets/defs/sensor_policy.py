"""Which hours to ask for now: the policy of the sensor, as a pure function of what could be asked for and when it failed.

Which hours could be asked for is in `ledger/candidates.py`; what became of earlier requests, in `ledger/requests.py`; Dagster's runs are
read and asked for in `sensors.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from antenna_assets.domain.hours import contiguous, hour_key

HOURS_PER_RUN = 24
"""The most hours of a run, and of all the runs that one tick asks for."""

RETRIES = 6
"""So many of them are kept for hours that failed before, and no more while others wait: neither side starves the other."""

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=1)
MOST_ATTEMPTS = 10
"""After so many, some four hours, an hour is stuck: nobody asks for it again but a person, or rows that come later."""

ROWS_A_MINUTE = 1_000_000
"""An hour that is published waits a minute for so many of its rows before they are all written again for the sake of a few."""

PAUSE = timedelta(minutes=5)
"""Between two publications of an hour for late rows: even of a small one each costs a second, and there may be a day of them."""

LARGE_SHARE = 0.1
"""Where so much of an hour is new, it does not wait."""


@dataclass(frozen=True)
class Candidate:
    """A closed hour that is not wholly published, that Dagster knows, that no run covers, and that does not wait for a retry.

    Attributes:
        attempts: how many runs failed since it was last published.
        published_rows: what is published of it; 0 if it waits for its first publication, or for the end of another one.
        late_rows: those that came since, the first of them at `late_since`.
        again_at: when it was last published again for late rows; None if it never was.
    """

    hour: datetime
    up_to_batch: int
    attempts: int = 0
    published_rows: int = 0
    late_rows: int = 0
    late_since: datetime | None = None
    again_at: datetime | None = None


@dataclass(frozen=True)
class Request:
    """Hours to run together, and the newest batch in them."""

    hours: Sequence[datetime]
    batch: int

    @property
    def name(self) -> str:
        """What it is for. Another request may have the same name: the key of a run needs more than that."""
        return f"{hour_key(self.hours[0])}..{hour_key(self.hours[-1])}@{self.batch}"


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
        """Whether it is not asked for again, unless rows come."""
        return self.attempts >= MOST_ATTEMPTS


def wait_after(attempts: int) -> timedelta:
    """How long an hour waits after its last attempt: twice as long each time."""
    # Not 2**attempts: after a month of failures that is no number any more.
    return min(FIRST_WAIT * 2 ** min(max(attempts - 1, 0), 16), LONGEST_WAIT)


def republish_wait(published_rows: int, late_rows: int, longest: timedelta) -> timedelta:
    """How long late rows wait before the hour that they belong to is published again.

    To publish them every row of the hour is written again. So the wait grows with the rows that are published, a minute a
    million, up to `longest`, and shrinks with the share of late rows, down to nothing where a tenth of the hour is new. A
    small hour waits for less than the time between two ticks.
    """
    wait = timedelta(minutes=1) * (published_rows / ROWS_A_MINUTE)
    return min(longest, wait) * _old_share(published_rows, late_rows)


def republish_pause(published_rows: int, late_rows: int, longest: timedelta) -> timedelta:
    """How long after one publication for late rows the next one is, at least: the first one is for no pause to hold up."""
    return min(longest, PAUSE) * _old_share(published_rows, late_rows)


def _old_share(published_rows: int, late_rows: int) -> float:
    """1 where nearly nothing is new, 0 from `LARGE_SHARE` on."""
    if not published_rows or late_rows <= 0:
        return 0.0
    return max(0.0, 1 - late_rows / (published_rows + late_rows) / LARGE_SHARE)


def waiting_hours(
    candidates: Sequence[Candidate], *, newest: datetime | None, now: datetime, longest: timedelta
) -> dict[datetime, datetime]:
    """The hours whose late rows wait, and until when; the newest hour never does."""
    found: dict[datetime, datetime] = {}
    for one in candidates:
        if one.hour != newest and not one.attempts and one.late_since is not None:
            amounts = one.published_rows, one.late_rows
            until = one.late_since + republish_wait(*amounts, longest)
            # Never after its late rows but for a clock that was set back.
            if one.again_at is not None and one.again_at <= one.late_since:
                until = max(until, one.again_at + republish_pause(*amounts, longest))
            # Rows of the future are a clock that was set back: nobody waits until it is there again.
            if one.late_since <= now < until:
                found[one.hour] = until
    return found


def plan_requests(candidates: Sequence[Candidate], *, newest: datetime | None) -> list[Request]:
    """What to ask for now, oldest first, at most `HOURS_PER_RUN` hours.

    Hours that failed are asked for in ever smaller company: 24 hours, then 12, 6, 3, and alone. So one bad hour holds up its
    neighbours for some minutes and not for ever; and the retries of many bad hours leave room for the others. The newest
    hour is asked for whatever waits before it: it is the one that people look at.

    Args:
        candidates: those that do not wait, ascending.
        newest: the newest closed hour.
    """
    found = {one.hour: one for one in candidates}
    first = [newest] if newest in found and len(found) > HOURS_PER_RUN else []
    left = HOURS_PER_RUN - len(first)
    fresh = [one.hour for one in candidates if not one.attempts and one.hour not in first]
    failed = [one.hour for one in candidates if one.attempts and one.hour not in first]
    again = failed[: max(RETRIES, left - len(fresh))]
    groups = [first, *_groups(sorted(fresh[: left - len(again)] + again), found)]
    return [
        Request(group, max(found[hour].up_to_batch for hour in group))
        for group in sorted(filter(None, groups))
    ]


def _groups(hours: Sequence[datetime], found: Mapping[datetime, Candidate]) -> list[list[datetime]]:
    companies: dict[int, list[datetime]] = {}
    for hour in hours:
        companies.setdefault(max(1, HOURS_PER_RUN >> found[hour].attempts), []).append(hour)
    return [group for longest, company in companies.items() for group in contiguous(company, longest)]
