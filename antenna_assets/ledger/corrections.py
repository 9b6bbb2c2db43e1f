"""Corrections of the quotas of past hours, and publishing again what runs publish by the quotas of before."""

from datetime import datetime, timedelta

import psycopg

from antenna_assets.domain.lifetimes import LONGEST_RUN
from antenna_assets.ledger.hours_to_publish import ask_for_hours_again

LONGEST_COMMIT = timedelta(minutes=10)
"""Publications are timed before they are committed: so long before a correction they are looked at, too."""


def record_correction(connection: psycopg.Connection, since: str) -> None:
    """Record that quotas of hours were corrected from an instant on, in the transaction that corrects them.

    Args:
        since: the instant as PostgreSQL writes it; it may be '-infinity'.
    """
    connection.execute(
        "INSERT INTO ledger.quota_correction (users_version, since)"
        " SELECT version, %s FROM ledger.users_version",
        [since],
    )


def ask_for_hours_of_corrections(connection: psycopg.Connection, now: datetime) -> list[datetime]:
    """Ask again for the hours that runs have published since a correction with the quotas of before; returns
    them.

    What was published at the correction is asked for by the correction itself. A run that had read the users
    by then publishes later, hours that nobody knew as published among them.

    Args:
        now: by PostgreSQL's clock.
    """
    if connection.execute("SELECT EXISTS (SELECT FROM ledger.quota_correction)").fetchone() != (True,):
        return []
    with connection.transaction():
        connection.execute(
            "DELETE FROM ledger.quota_correction WHERE made_at < %s",
            [now - 2 * LONGEST_RUN],
        )
        rows = connection.execute(
            "WITH before AS (SELECT coalesce((SELECT number FROM ledger.publication WHERE committed_at <"
            "  (SELECT min(made_at) FROM ledger.quota_correction) - %(earlier)s"
            "  ORDER BY number DESC LIMIT 1), 0) AS number)"
            " SELECT DISTINCT judged.hour FROM before JOIN ledger.publication AS judged"
            "  ON judged.number > before.number AND judged.asset = ANY(%(judged)s)"
            " JOIN ledger.quota_correction AS correction"
            "  ON judged.committed_at >= correction.made_at - %(earlier)s"
            "  AND ledger.last_instant(judged.hour) >= correction.since"
            " JOIN ledger.publication_head AS head"
            "  ON head.asset = 'enriched_usage' AND head.hour = judged.hour"
            "  AND head.users_version < correction.users_version"
            "  AND coalesce(head.asked_users_version, 0) < correction.users_version ORDER BY 1",
            {"earlier": LONGEST_COMMIT, "judged": ["bytes_agg_user_1h", "users_over_quota_1h"]},
        )
        hours = [hour for (hour,) in rows.fetchall()]
        if hours:
            ask_for_hours_again(connection, hours)
    return hours
