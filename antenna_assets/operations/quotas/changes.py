"""Changing the quotas of users and plans, from now on or from an earlier instant on.

A change is one transaction, which also has the published hours that it concerns published again. A dry run is
the same transaction, rolled back.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime

import psycopg

from antenna_assets.domain.periods import PERIODS
from antenna_assets.ledger.corrections import record_correction
from antenna_assets.ledger.hours_to_publish import ask_for_hours_again
from antenna_assets.ledger.periods_to_publish import ask_for_periods_again
from antenna_assets.operations.quotas.quota import Quota, QuotaRefused
from antenna_assets.operations.quotas.verdicts import CONCERNED, LAST_JUDGED, Verdicts, find_verdicts

WHAT_IF_HOURS = 24
"""A dry run of a change from now on shows the verdicts that it would have had in so many published hours."""


@dataclass(frozen=True)
class Changed:
    """What a change of quotas did, or would do.

    Attributes:
        changes: how many there are.
        periods: the published days, and the first days of published months, that a correction concerns.
        what_if_since: the first hour of a dry run that shows the quotas as if they had held in the newest
            hours; None if the verdicts are those that do change.
    """

    changes: int
    verdicts: Verdicts
    what_if_since: datetime | None = None
    periods: dict[str, list[date]] = field(default_factory=dict)


def change_user(
    connection: psycopg.Connection,
    user: str,
    period: str,
    quota: Quota,
    *,
    valid_from: datetime | None = None,
    dry_run: bool = False,
) -> Changed:
    """Change a user's own quota.

    Args:
        valid_from: None is now; an earlier instant is a correction: what came later stays.

    Raises:
        QuotaRefused: the user is not known, or the instant is in the future; nothing was changed.
    """

    def fill(of: psycopg.Connection) -> None:
        if of.execute("SELECT EXISTS (SELECT FROM user_metadata WHERE id = %s)", [user]).fetchone() != (
            True,
        ):
            raise QuotaRefused(f"expected a user of user_metadata, found {user!r}: add its row there first")
        of.execute(
            "INSERT INTO quota_asked (id, period, valid_from, quota, ended) VALUES (%s, %s, %s, %s, %s)",
            [user, period, valid_from, quota.bytes, quota.of_plan],
        )

    return change_users(connection, fill, dry_run=dry_run)


def change_users(
    connection: psycopg.Connection, fill: Callable[[psycopg.Connection], None], *, dry_run: bool = False
) -> Changed:
    """Change the quotas of users, all or none.

    Args:
        fill: inserts into the temporary table `quota_asked (id, period, valid_from, quota, ended)`.
            `valid_from` is null for now.

    Raises:
        QuotaRefused: by `fill`, or a quota would begin in the future; nothing was changed.
    """
    with changing(connection, dry_run=dry_run):
        connection.execute(
            "CREATE TEMP TABLE quota_asked (id text NOT NULL, period text NOT NULL, valid_from timestamptz,"
            " quota bigint, ended boolean NOT NULL, what_if boolean NOT NULL DEFAULT false) ON COMMIT DROP"
        )
        fill(connection)
        since = _set_times(connection, dry_run=dry_run)
        changes = connection.execute(
            "INSERT INTO user_quota_change (id, period, valid_from, quota, ended)"
            " SELECT id, period, valid_from, quota, ended FROM quota_asked"
            " ON CONFLICT (id, period, valid_from)"
            " DO UPDATE SET quota = excluded.quota, ended = excluded.ended"
        ).rowcount
        if since is not None:
            connection.execute(
                "UPDATE user_quota_change AS later SET quota = asked.quota, ended = asked.ended"
                " FROM quota_asked AS asked WHERE asked.what_if"
                "  AND (later.id, later.period) = (asked.id, asked.period)"
                "  AND later.valid_from > asked.valid_from"
            )
        connection.execute(
            "INSERT INTO quota_concerned"  # noqa: S608
            " SELECT id, valid_from, CASE WHEN NOT what_if THEN ("
            "  SELECT min(valid_from) FROM user_quota_change AS later"
            "  WHERE later.id = asked.id AND later.period = 'hour'"
            "   AND later.valid_from > asked.valid_from) END"
            f" FROM quota_asked AS asked WHERE period = 'hour' AND valid_from <= {LAST_JUDGED}"
        )
        corrected = connection.execute(
            "SELECT period, min(valid_from)::text FROM quota_asked WHERE valid_from < now() AND NOT what_if"
            " GROUP BY period"
        ).fetchall()
        return replace(finish(connection, changes, since), periods=_periods_again(connection, corrected))


def change_plan(
    connection: psycopg.Connection,
    plan: str,
    period: str,
    quota: Quota,
    *,
    valid_from: datetime | None = None,
    dry_run: bool = False,
) -> Changed:
    """Change the quota of a plan, which is made if it is new. The first quota of a new plan holds since ever.

    Raises:
        QuotaRefused: the quota is that of a plan, or would begin in the future; nothing was changed.
    """
    if quota.of_plan or not plan:
        raise QuotaRefused("expected the name of a plan, with a number of bytes or unlimited")
    with changing(connection, dry_run=dry_run):
        made = connection.execute("INSERT INTO plan VALUES (%s) ON CONFLICT DO NOTHING", [plan]).rowcount == 1
        since = _what_if_since(connection) if dry_run and valid_from is None else None
        ((from_,),) = connection.execute(
            "SELECT CASE WHEN %s THEN '-infinity'"
            " ELSE coalesce(%s::timestamptz, clock_timestamp()) END::text",
            [made and valid_from is None, since or valid_from],
        ).fetchall()
        _require_past(connection, "SELECT %s::timestamptz > clock_timestamp()", [from_])
        changes = connection.execute(
            "INSERT INTO plan_quota_change (plan, period, valid_from, quota) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (plan, period, valid_from) DO UPDATE SET quota = excluded.quota",
            [plan, period, from_, quota.bytes],
        ).rowcount
        if since is not None:
            connection.execute(
                "UPDATE plan_quota_change SET quota = %s WHERE plan = %s AND period = %s AND valid_from > %s",
                [quota.bytes, plan, period, from_],
            )
        connection.execute(
            "INSERT INTO quota_concerned SELECT DISTINCT id, %(from)s::timestamptz, (SELECT min(valid_from)"  # noqa: S608
            "  FROM plan_quota_change WHERE plan = %(plan)s AND period = 'hour' AND valid_from > %(from)s"
            "   AND NOT %(what_if)s)"
            " FROM user_plan_change WHERE plan = %(plan)s AND %(period)s = 'hour'"
            f" AND %(from)s::timestamptz <= {LAST_JUDGED}",
            {"plan": plan, "period": period, "from": from_, "what_if": since is not None},
        )
        # A new plan has no users yet.
        corrected = [] if made or valid_from is None else [(period, from_)]
        return replace(finish(connection, changes, since), periods=_periods_again(connection, corrected))


@contextmanager
def changing(connection: psycopg.Connection, *, dry_run: bool) -> Iterator[None]:
    """A transaction that has locked the users' version; a dry run is rolled back."""
    with connection.transaction(force_rollback=dry_run):
        # Times are taken after this, so that they are in the order of the commits.
        connection.execute("SELECT version FROM ledger.users_version FOR UPDATE")
        connection.execute(CONCERNED.encode())
        yield


def finish(connection: psycopg.Connection, changes: int, since: datetime | None = None) -> Changed:
    """Find the verdicts of the rows of `quota_concerned`, and have their hours published again."""
    verdicts = find_verdicts(connection)
    if verdicts.hours:
        ask_for_hours_again(connection, verdicts.hours)
    return Changed(changes, verdicts, since)


def _periods_again(
    connection: psycopg.Connection, corrected: Sequence[tuple[str, str]]
) -> dict[str, list[date]]:
    """Have the published days and months published again that a correction of their quotas concerns; returns
    them. Of hours it is recorded, for those that are being published now.

    Args:
        corrected: periods, each with the text of the first instant from which on a quota is another one.
    """
    found: dict[str, list[date]] = {}
    first = dict(corrected)
    if "hour" in first:
        record_correction(connection, first["hour"])
    for period in PERIODS:
        # The text may be '-infinity'.
        ((since,),) = connection.execute(
            "SELECT greatest(%s::timestamptz, (SELECT min(hour) FROM ledger.hour))", [first.get(period)]
        ).fetchall()
        if period in first and since is not None:
            found[period] = ask_for_periods_again(connection, period, since)
    return {period: days for period, days in found.items() if days}


def _set_times(connection: psycopg.Connection, *, dry_run: bool) -> datetime | None:
    """Set the times that are not given: now, or in a dry run the first of the newest published hours."""
    since = _what_if_since(connection) if dry_run else None
    missing = connection.execute(
        "UPDATE quota_asked SET valid_from = coalesce(%(since)s::timestamptz, clock.now),"
        " what_if = %(since)s::timestamptz IS NOT NULL"
        " FROM (SELECT clock_timestamp() AS now OFFSET 0) AS clock WHERE valid_from IS NULL",
        {"since": since},
    ).rowcount
    _require_past(
        connection, "SELECT EXISTS (SELECT FROM quota_asked WHERE valid_from > clock_timestamp())", []
    )
    return since if missing else None


def _require_past(connection: psycopg.Connection, query: str, values: list[object]) -> None:
    if connection.execute(query.encode(), values).fetchone() == (True,):
        raise QuotaRefused(
            "expected a quota that holds from now or an earlier instant on, found a future one"
        )


def _what_if_since(connection: psycopg.Connection) -> datetime | None:
    return connection.execute(
        "SELECT min(hour) FROM (SELECT hour FROM ledger.quota_hour ORDER BY hour DESC LIMIT %s) AS newest",
        [WHAT_IF_HOURS],
    ).fetchall()[0][0]
