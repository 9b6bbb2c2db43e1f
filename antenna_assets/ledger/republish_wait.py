"""How long late rows wait before their hour is published again: pure functions of row counts and times."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from antenna_assets.ledger.hours_to_publish import Candidate

ROWS_A_MINUTE = 1_000_000
"""Rows of a published hour for which late rows wait one minute, as all of them are written again."""


PAUSE = timedelta(minutes=5)
"""The least time between two publications of an hour for late rows: each costs at least a second."""


LARGE_SHARE = 0.1
"""The share of late rows from which an hour does not wait."""


def republish_wait(published_rows: int, late_rows: int, longest: timedelta) -> timedelta:
    """How long late rows wait before their hour is published again.

    Publishing writes every row of the hour. So the wait grows by a minute for each million published rows, up
    to `longest`, and shrinks with the share of late rows, to zero where they are a tenth of the hour. For a
    small hour it is shorter than the time between two ticks.
    """
    wait = timedelta(minutes=1) * (published_rows / ROWS_A_MINUTE)
    return min(longest, wait) * _old_share(published_rows, late_rows)


def republish_pause(published_rows: int, late_rows: int, longest: timedelta) -> timedelta:
    """The least time from one publication for late rows to the next; the first one is not delayed."""
    return min(longest, PAUSE) * _old_share(published_rows, late_rows)


def _old_share(published_rows: int, late_rows: int) -> float:
    """1 where nearly no row is late, 0 from `LARGE_SHARE` on."""
    if not published_rows or late_rows <= 0:
        return 0.0
    return max(0.0, 1 - late_rows / (published_rows + late_rows) / LARGE_SHARE)


def waiting_hours(
    candidates: Sequence[Candidate], *, newest: datetime | None, now: datetime, longest: timedelta
) -> dict[datetime, datetime]:
    """The hours whose late rows wait, and until when. The newest hour never waits."""
    found: dict[datetime, datetime] = {}
    for one in candidates:
        if one.hour != newest and not one.attempts and one.late_since is not None:
            amounts = one.published_rows, one.late_rows
            until = one.late_since + republish_wait(*amounts, longest)
            # Later than the late rows only if the clock was set back.
            if one.again_at is not None and one.again_at <= one.late_since:
                until = max(until, one.again_at + republish_pause(*amounts, longest))
            # Late rows in the future: the clock was set back, and the hour does not wait for it to catch up.
            if one.late_since <= now < until:
                found[one.hour] = until
    return found
