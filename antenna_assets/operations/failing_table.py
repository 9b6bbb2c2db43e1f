"""The table of hours, or of days and months, whose runs failed, in `antenna status`."""

from collections.abc import Mapping

from antenna_assets.domain.fitting_table import FittingTable, number_columns
from antenna_assets.ledger.failing import Failing


def failing_table(what: str, failing: Mapping[str, Failing], *, title: str, repair: str) -> FittingTable:
    """The table, a row for each.

    Args:
        what: the title of the column of their names, which are the keys of `failing`.
        repair: what publishes a stuck one again, after the cause is gone.
    """
    attempts = number_columns("attempts")
    table = FittingTable(what, *attempts, "last run", "ended", "next attempt", title=title)
    for name, one in failing.items():
        ended, next_attempt = (f"{at:%Y-%m-%d %H:%M:%S} UTC" for at in (one.ended, one.next_attempt))
        table.add_row(name, str(one.attempts), one.run_id[:8], ended, "stuck" if one.stuck else next_attempt)
    table.caption = "as of the sensor's last tick; Dagster's page of the run says why"
    if any(one.stuck for one in failing.values()):
        table.caption += f". A stuck {what} is not retried automatically: fix the cause, then {repair}"
    return table
