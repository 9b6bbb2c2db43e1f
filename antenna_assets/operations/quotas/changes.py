"""Changing the quotas of users and plans, from now on or from an earlier instant on.

A change is one transaction, which also has the published hours, days and months that it concerns published
again. A dry run is the same transaction, rolled back.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime

import psycopg
from psycopg.types.json import Jsonb

from antenna_assets.domain.periods import PERIODS, Period
from antenna_assets.ledger.corrections import record_correction
from antenna_assets.ledger.hours_to_publish import ask_for_hours_again
from antenna_assets.ledger.periods_to_publish import ask_for_periods_again
from antenna_assets.operations.quotas.quota import Quota, QuotaRefused
from antenna_assets.operations.quotas.verdicts import (
    CONCERNED,
    LAST_JUDGED,
    PeriodVerdicts,
    Verdicts,
    find_period_verdicts,
    find_verdicts,
)

WHAT_IF_HOURS = 24
"""A dry run of a change from now on shows the verdicts that it would have had in so many published hours."""

WHAT_IF_PERIODS: dict[Period, int] = {"day": 31, "month": 12}
"""And in so many published days or months."""


@dataclass(frozen=True)
class Changed:
    """What a change of quotas did, or would do.

    Attributes:
        changes: how many there are.
        verdicts: those of hours.
        periods: the published days, and the first days of published months, that are published again after a
            correction.
        what_if_since: the first hour of a dry run that shows the quotas as if they had held in the newest
            hours; None if the verdicts are those that do change.
        of_hours: whether a quota of hours is changed.
        of_periods: the verdicts of days and of months, if a quota of theirs is changed.
    """

    changes: int
    verdicts: Verdicts
    what_if_since: datetime | None = None
    periods: dict[str, list[date]] = field(default_factory=dict)
    of_hours: bool = True
    of_periods: dict[Period, PeriodVerdicts] = field(default_factory=dict)


@dataclass(frozen=True)
class WhatIf:
    """From when on a dry run takes the quotas of a period that are set from now on.

    Attributes:
        since: the first instant.
        first: the first day or month that is looked at; None: of hours.
    """

    since: datetime
    first: date | None = None


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
        asked = [row[0] for row in connection.execute("SELECT DISTINCT period FROM quota_asked").fetchall()]
        what_if = _set_times(connection, dry_run=dry_run)
        changes = connection.execute(
            "INSERT INTO user_quota_change (id, period, valid_from, quota, ended)"
            " SELECT id, period, valid_from, quota, ended FROM quota_asked"
            " ON CONFLICT (id, period, valid_from)"
            " DO UPDATE SET quota = excluded.quota, ended = excluded.ended"
        ).rowcount
        if what_if:
            connection.execute(
                "UPDATE user_quota_change AS later SET quota = asked.quota, ended = asked.ended"
                " FROM quota_asked AS asked WHERE asked.what_if"
                "  AND (later.id, later.period) = (asked.id, asked.period)"
                "  AND later.valid_from > asked.valid_from"
            )
        until = (
            "CASE WHEN NOT what_if THEN (SELECT min(valid_from) FROM user_quota_change AS later"
            " WHERE later.id = asked.id AND later.period = asked.period"
            "  AND later.valid_from > asked.valid_from) END"
        )
        connection.execute(
            f"INSERT INTO quota_concerned SELECT id, valid_from, {until}"  # noqa: S608
            f" FROM quota_asked AS asked WHERE period = 'hour' AND valid_from <= {LAST_JUDGED}"
        )
        connection.execute(
            "INSERT INTO quota_period_concerned"  # noqa: S608
            f" SELECT id, period, valid_from, {until},"
            "  CASE WHEN what_if THEN (%s::jsonb ->> period)::date END"
            " FROM quota_asked AS asked WHERE period <> 'hour'",
            [Jsonb({period: f"{one.first}" for period, one in what_if.items()})],
        )
        corrected = connection.execute(
            "SELECT period, min(valid_from)::text FROM quota_asked WHERE valid_from < now() AND NOT what_if"
            " GROUP BY period"
        ).fetchall()
        return _finish(connection, changes, asked, what_if, corrected)


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
        what_if = _what_if(connection, [period]) if dry_run and valid_from is None else {}
        since = what_if[period].since if what_if else None
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
        of_users = (
            "SELECT DISTINCT id, %(from)s::timestamptz AS since, (SELECT min(valid_from)"
            "  FROM plan_quota_change WHERE plan = %(plan)s AND period = %(period)s AND valid_from > %(from)s"
            "   AND NOT %(what_if)s) AS until"
            " FROM user_plan_change WHERE plan = %(plan)s"
        )
        values = {"plan": plan, "period": period, "from": from_, "what_if": bool(what_if)}
        if period == "hour":
            connection.execute(
                f"INSERT INTO quota_concerned {of_users} AND %(from)s::timestamptz <= {LAST_JUDGED}".encode(),
                values,
            )
        else:
            connection.execute(
                "INSERT INTO quota_period_concerned SELECT id, %(period)s, since, until, %(first)s"  # noqa: S608
                f" FROM ({of_users}) AS users",
                {**values, "first": what_if[period].first if what_if else None},
            )
        # A new plan has no users yet.
        corrected = [] if made or valid_from is None else [(period, from_)]
        return _finish(connection, changes, [period], what_if, corrected)


@contextmanager
def changing(connection: psycopg.Connection, *, dry_run: bool) -> Iterator[None]:
    """A transaction that has locked the users' version; a dry run is rolled back."""
    with connection.transaction(force_rollback=dry_run):
        # Times are taken after this, so that they are in the order of the commits.
        connection.execute("SELECT version FROM ledger.users_version FOR UPDATE")
        for table in CONCERNED:
            connection.execute(table.encode())
        yield


def finish(connection: psycopg.Connection, changes: int, since: datetime | None = None) -> Changed:
    """Find the verdicts of the rows of `quota_concerned`, and have their hours published again."""
    verdicts = find_verdicts(connection)
    if verdicts.hours:
        ask_for_hours_again(connection, verdicts.hours)
    return Changed(changes, verdicts, since)


def _finish(
    connection: psycopg.Connection,
    changes: int,
    asked: Collection[str],
    what_if: Mapping[str, WhatIf],
    corrected: Sequence[tuple[str, str]],
) -> Changed:
    """Find the verdicts of the hours, days and months, and have them published again.

    Args:
        asked: the periods whose quotas are changed.
    """
    hours = what_if.get("hour")
    changed = finish(connection, changes, None if hours is None else hours.since)
    # First, as it waits for a period that is being published.
    again = _periods_again(connection, corrected)
    of_periods = {
        period: find_period_verdicts(connection, period, what_if[period].first if period in what_if else None)
        for period in PERIODS
        if period in asked
    }
    return replace(changed, periods=again, of_hours="hour" in asked, of_periods=of_periods)


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


def _set_times(connection: psycopg.Connection, *, dry_run: bool) -> dict[str, WhatIf]:
    """Set the times that are not given: now, or in a dry run the first of the newest published hours, days or
    months; returns where these begin."""
    missing = connection.execute(
        "SELECT DISTINCT period FROM quota_asked WHERE valid_from IS NULL"
    ).fetchall()
    what_if = _what_if(connection, [period for (period,) in missing]) if dry_run else {}
    connection.execute(
        "UPDATE quota_asked SET valid_from = coalesce((%(since)s::jsonb ->> period)::timestamptz, clock.now),"
        " what_if = %(since)s::jsonb ? period"
        " FROM (SELECT clock_timestamp() AS now OFFSET 0) AS clock WHERE valid_from IS NULL",
        {"since": Jsonb({period: one.since.isoformat() for period, one in what_if.items()})},
    )
    _require_past(
        connection, "SELECT EXISTS (SELECT FROM quota_asked WHERE valid_from > clock_timestamp())", []
    )
    return what_if


def _require_past(connection: psycopg.Connection, query: str, values: list[object]) -> None:
    if connection.execute(query.encode(), values).fetchone() == (True,):
        raise QuotaRefused(
            "expected a quota that holds from now or an earlier instant on, found a future one"
        )


def _what_if(connection: psycopg.Connection, asked: Collection[str]) -> dict[str, WhatIf]:
    """Where the newest published hours, days or months begin, as far as there are any."""
    found = {}
    if "hour" in asked:
        ((since,),) = connection.execute(
            "SELECT min(hour) FROM ("
            " SELECT hour FROM ledger.quota_hour ORDER BY hour DESC LIMIT %s) AS newest",
            [WHAT_IF_HOURS],
        ).fetchall()
        if since is not None:
            found["hour"] = WhatIf(since)
    for period in PERIODS:
        if period in asked:
            ((first, since),) = connection.execute(
                "SELECT first, (SELECT min(ledger.period_start('day', first, zone))"
                "  FROM ledger.zones_in_use() AS zone)"
                " FROM (SELECT min(day) AS first FROM (SELECT day FROM ledger.period_head WHERE period = %s"
                "  ORDER BY day DESC LIMIT %s) AS newest) AS oldest",
                [period, WHAT_IF_PERIODS[period]],
            ).fetchall()
            if first is not None:
                found[period] = WhatIf(since, first)
    return found
