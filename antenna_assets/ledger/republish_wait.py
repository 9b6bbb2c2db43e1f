"""How long late rows wait before their hour is published again: pure functions of row counts and instants."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from antenna_assets.ledger.candidates import Candidate

ROWS_A_MINUTE = 1_000_000
"""An hour that is published waits a minute for so many of its rows before they are all written again for the sake of a few."""


PAUSE = timedelta(minutes=5)
"""Between two publications of an hour for late rows: even of a small one each costs a second, and there may be a day of them."""


LARGE_SHARE = 0.1
"""Where so much of an hour is new, it does not wait."""


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
