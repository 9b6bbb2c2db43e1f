"""`antenna backfill --quota-of now`: judging past hours by the quotas of now.

It is written into the history, so that the next late row of such an hour does not bring the old verdict back.
"""

from collections.abc import Sequence
from datetime import datetime

import psycopg

from antenna_assets.domain.hours import HOUR
from antenna_assets.operations.quotas.changes import Changed, changing, finish


def judge_by_quotas_of_now(connection: psycopg.Connection, hours: Sequence[datetime]) -> Changed:
    """Let the quotas of now be those that held in a range of hours, for whom they were others.

    What was in force after the range stays so. A user without a quota now is unlimited there.

    Args:
        hours: closed, ascending, without a gap.
    """
    values = {"hours": list(hours), "first": hours[0], "end": hours[-1] + HOUR}
    with changing(connection, dry_run=False):
        connection.execute(
            "CREATE TEMP TABLE quota_rejudged ON COMMIT DROP AS"
            " SELECT id, now.quota, coalesce(own.ended, true) AS ended_after, own.quota AS quota_after"
            " FROM (SELECT clock_timestamp() AS now OFFSET 0) AS clock"
            " CROSS JOIN LATERAL ledger.quotas_changed('hour', ledger.last_instant(%(first)s), clock.now)"
            " JOIN user_metadata USING (id)"
            " CROSS JOIN LATERAL ledger.quota_at(id, 'hour', clock.now) AS now"
            " LEFT JOIN LATERAL (SELECT own.quota, own.ended FROM user_quota_change AS own"
            "  WHERE own.id = user_metadata.id AND own.period = 'hour' AND own.valid_from <= %(end)s"
            "  ORDER BY own.valid_from DESC LIMIT 1) AS own ON true"
            " WHERE EXISTS (SELECT FROM unnest(%(hours)s::timestamptz[]) AS hour"
            "  CROSS JOIN LATERAL ledger.quota_at(user_metadata.id, 'hour', ledger.last_instant(hour))"
            "   AS of_then"
            "  WHERE of_then.quota IS DISTINCT FROM now.quota)",
            values,
        )
        connection.execute(
            "INSERT INTO user_quota_change (id, period, valid_from, quota, ended)"
            " SELECT id, 'hour', %(end)s, quota_after, ended_after FROM quota_rejudged"
            " WHERE ended_after OR quota_after IS DISTINCT FROM quota ON CONFLICT DO NOTHING",
            values,
        )
        connection.execute(
            "DELETE FROM user_quota_change AS change USING quota_rejudged AS one"
            " WHERE change.id = one.id AND change.period = 'hour'"
            "  AND change.valid_from >= %(first)s AND change.valid_from < %(end)s",
            values,
        )
        changes = connection.execute(
            "INSERT INTO user_quota_change (id, period, valid_from, quota)"
            " SELECT id, 'hour', %(first)s, quota FROM quota_rejudged",
            values,
        ).rowcount
        connection.execute(
            "INSERT INTO quota_concerned SELECT id, %(first)s, %(end)s FROM quota_rejudged", values
        )
        return finish(connection, changes)
