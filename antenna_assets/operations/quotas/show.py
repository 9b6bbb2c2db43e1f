"""A user's quotas: its own, its plan's, what is in force now, and the history."""

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from antenna_assets.operations.quotas.quota import PERIODS


@dataclass(frozen=True)
class InForce:
    """The quota of a period that is in force now.

    Attributes:
        source: `own` or `plan`; None: no quota.
        quota: None: unlimited, or no quota.
    """

    period: str
    source: str | None
    quota: int | None


@dataclass(frozen=True)
class PlanQuota:
    """The quota of the user's plan for a period; None: unlimited."""

    period: str
    quota: int | None


@dataclass(frozen=True)
class Change:
    """An own quota of the user's. `valid_from` None: since ever; `valid_to` None: until now."""

    period: str
    valid_from: datetime | None
    quota: int | None
    valid_to: datetime | None


@dataclass(frozen=True)
class UserQuotas:
    """A user's quotas. `known`: it is in `user_metadata`."""

    user: str
    known: bool
    plan: str | None
    in_force: list[InForce]
    of_plan: list[PlanQuota]
    history: list[Change]


def quotas_of(connection: psycopg.Connection, user: str) -> UserQuotas:
    """A user's quotas now, and the history of its own; of somebody who is not known, too."""
    row = connection.execute("SELECT plan FROM user_metadata WHERE id = %s", [user]).fetchone()
    plan = row[0] if row else None
    with connection.cursor(row_factory=class_row(InForce)) as cursor:
        in_force = cursor.execute(
            "SELECT period, source, quota FROM unnest(%s::text[]) WITH ORDINALITY AS of (period, place)"
            " CROSS JOIN LATERAL ledger.quota_at(%s, period, clock_timestamp()) ORDER BY place",
            [list(PERIODS), user],
        ).fetchall()
    with connection.cursor(row_factory=class_row(PlanQuota)) as cursor:
        of_plan = cursor.execute(
            "SELECT DISTINCT ON (period) period, quota FROM plan_quota_change WHERE plan = %s"
            " ORDER BY period, valid_from DESC",
            [plan],
        ).fetchall()
    with connection.cursor(row_factory=class_row(Change)) as cursor:
        # Python has no instant before all others.
        history = cursor.execute(
            "SELECT period, CASE WHEN isfinite(valid_from) THEN valid_from END AS valid_from, quota, valid_to"
            " FROM quota_history WHERE id = %s ORDER BY period, quota_history.valid_from",
            [user],
        ).fetchall()
    return UserQuotas(user, row is not None, plan, in_force, of_plan, history)
