"""How long things live: attempts, files that nothing refers to, old versions, live windows.

Only the lengths and the one rule for an attempt are here; what is removed, and how, is in `operations/sweep/run.py` and the modules
it calls. The horizon, which is how long landed files stay, is a setting.
"""

from datetime import datetime, timedelta

from antenna_assets.errors import AntennaError

LONGEST_RUN = timedelta(hours=2)
"""An attempt older than this commits nothing. Dagster ends runs then: `max_runtime_seconds` in `docker/dagster.yaml`."""

SAFE_AGE = 2 * LONGEST_RUN
"""A file that nothing refers to and that is older belongs to no attempt that could still commit it."""

GRACE = SAFE_AGE
"""How long files stay after the ledger has forgotten them, for the runs that had asked for them before."""

VERSION_RETENTION = timedelta(days=7)
"""Replaced files of the lake stay so long: restatements of the last 7 days can be read as they were, which is a week's
report with its corrections."""

RUN_LOG_RETENTION = timedelta(days=30)
"""What a run of Dagster logged stays so long."""

PAGES_RETENTION = timedelta(days=400)
"""Runs, and the newest of what they said of each asset's partition, stay so long: a year's hours are seen in Dagster's
pages, with last year's beside them. What an hour is made of and how it was published is in the ledger for ever."""

LIVE_RETENTION = timedelta(days=7)
"""Live windows are added to so long. They are for what happens now; for the rest the hourly tables are exact."""


class AttemptTooOld(AntennaError):
    """An attempt took longer than any may, so that its files may be swept: nothing was committed."""


def require_young(what: str, *, begun: datetime, now: datetime) -> None:
    """Stop an attempt that is older than `LONGEST_RUN`. Ask after the fence is taken, or a sweep may come between.

    Raises:
        AttemptTooOld: says how old it is.
    """
    age = now - begun
    if age > LONGEST_RUN:
        raise AttemptTooOld(
            f"{what} was begun {age.total_seconds() / 3600:.1f} hours ago and nothing older than "
            f"{LONGEST_RUN.total_seconds() / 3600:g} hours is committed, since its files may be swept; run it again"
        )
