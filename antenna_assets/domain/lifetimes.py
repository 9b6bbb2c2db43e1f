"""Lifetimes: of attempts, orphaned files, old versions, live windows and run logs.

`operations/sweep/` removes what is past them. The horizon, the retention of landed files, is a setting.
"""

from datetime import datetime, timedelta

from antenna_assets.errors import AntennaError

LONGEST_RUN = timedelta(hours=2)
"""An older attempt cannot commit. `max_runtime_seconds` in `docker/dagster.yaml` ends runs then."""

SAFE_AGE = 2 * LONGEST_RUN
"""An unreferenced file that is older belongs to no attempt that could still commit it."""

GRACE_PERIOD = SAFE_AGE
"""How long files stay after the ledger has dropped them, for runs that had read their names before."""

VERSION_RETENTION = timedelta(days=7)
"""How long replaced files of the lake stay, so that earlier versions of a week's hours can still be read."""

RUN_LOG_RETENTION = timedelta(days=30)
"""How long the logs of Dagster's runs stay."""

PAGES_RETENTION = timedelta(days=400)
"""How long Dagster's runs, and the newest events of each asset's partition, stay.

Dagster's pages show a year's hours beside last year's. The ledger keeps the history of an hour for ever."""

LIVE_RETENTION = timedelta(days=7)
"""How long live windows stay and take late events. For anything older the hourly tables are exact."""


class AttemptTooOld(AntennaError):
    """An attempt took longer than `LONGEST_RUN`, so its files may have been swept: nothing was committed."""


def require_young(what: str, *, begun: datetime, now: datetime) -> None:
    """Stop an attempt that is older than `LONGEST_RUN`. Call it while holding the fence, against sweeps.

    Raises:
        AttemptTooOld: the attempt is older.
    """
    age = now - begun
    if age > LONGEST_RUN:
        raise AttemptTooOld(
            f"{what} was begun {age.total_seconds() / 3600:.1f} hours ago, and nothing older than "
            f"{LONGEST_RUN.total_seconds() / 3600:g} hours is committed, as its files may have been swept; "
            "run it again"
        )
