"""Which hours to ask for now: the policy of the sensor, as a pure function of what could be asked for and when it failed.

Which hours could be asked for is in `ledger/candidates.py`; what became of earlier requests, in `ledger/requests.py`; Dagster's runs are
read and asked for in `sensors.py`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from antenna_assets.domain.hours import contiguous
from antenna_assets.ledger.candidates import Candidate
from antenna_assets.ledger.requests import Request

HOURS_PER_RUN = 24
"""The most hours of a run, and of all the runs that one tick asks for."""

RETRIES = 6
"""So many of them are kept for hours that failed before, and no more while others wait: neither side starves the other."""


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
    by_run_size: dict[int, list[datetime]] = {}
    for hour in hours:
        by_run_size.setdefault(max(1, HOURS_PER_RUN >> found[hour].attempts), []).append(hour)
    return [group for longest, company in by_run_size.items() for group in contiguous(company, longest)]
