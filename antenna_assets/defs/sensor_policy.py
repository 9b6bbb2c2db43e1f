"""The sensor's policy: which hours to request now, as a pure function of the candidates and their failures.

Which hours could be asked for is in `ledger/hours_to_publish.py`; what became of earlier requests, in
`ledger/requests.py`; Dagster's runs are read and asked for in `sensors.py`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from antenna_assets.domain.hours import contiguous
from antenna_assets.ledger.hours_to_publish import Candidate
from antenna_assets.ledger.requests import HourRequest

HOURS_PER_RUN = 24
"""The most hours of a run of the sensor, and of all the runs that one tick requests."""

RETRIES = 6
"""Reserved for hours that failed before, and no more while others wait: neither side starves the other."""


def plan_requests(candidates: Sequence[Candidate], *, newest: datetime | None) -> list[HourRequest]:
    """The runs to request now, oldest first, at most `HOURS_PER_RUN` hours in all.

    Hours that failed are requested in progressively smaller runs: 24 hours, then 12, 6, 3, 1. So a bad hour
    delays its neighbours for some minutes only, and the retries of many bad hours leave room for others. The
    newest hour is always requested: it is the one that people look at.

    Args:
        candidates: hours that are not waiting, ascending.
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
        HourRequest(group, max(found[hour].up_to_batch for hour in group))
        for group in sorted(filter(None, groups))
    ]


def _groups(hours: Sequence[datetime], found: Mapping[datetime, Candidate]) -> list[list[datetime]]:
    by_run_size: dict[int, list[datetime]] = {}
    for hour in hours:
        by_run_size.setdefault(max(1, HOURS_PER_RUN >> found[hour].attempts), []).append(hour)
    return [group for size, alike in by_run_size.items() for group in contiguous(alike, size)]
