"""Rules: at which percentages of a quota alerts are raised, for all, for a plan's users, or for one user."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg.rows import class_row

from antenna_assets.errors import AntennaError


class NoSuchRule(AntennaError):
    """A rule, user or plan that is named does not exist. Nothing was changed."""


@dataclass(frozen=True)
class AlertRule:
    """A row of `alert_rule`; without user and plan it is for everybody who has no closer one."""

    user_id: str | None
    plan: str | None
    period: str
    percents: list[int]
    cool_down: timedelta


def rules(connection: psycopg.Connection) -> list[AlertRule]:
    """All rules: those for everybody first, then those of plans and of users."""
    with connection.cursor(row_factory=class_row(AlertRule)) as cursor:
        return cursor.execute(
            "SELECT user_id, plan, period, percents, cool_down FROM alert_rule"
            " ORDER BY user_id NULLS FIRST, plan NULLS FIRST,"
            "  array_position(ARRAY['hour', 'day', 'month'], period)"
        ).fetchall()


def set_rule(
    connection: psycopg.Connection,
    period: str,
    percents: Sequence[int],
    cool_down: timedelta,
    *,
    user: str | None = None,
    plan: str | None = None,
) -> None:
    """Set the rule of a user, of a plan, or of everybody else, in the place of the one that it has.

    Raises:
        NoSuchRule: there is no such user or plan.
    """
    _require_known(connection, user, plan)
    connection.execute(
        "INSERT INTO alert_rule (user_id, plan, period, percents, cool_down) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (user_id, plan, period)"
        "  DO UPDATE SET percents = excluded.percents, cool_down = excluded.cool_down",
        [user, plan, period, sorted(set(percents)), cool_down],
    )


def remove_rule(
    connection: psycopg.Connection, period: str, *, user: str | None = None, plan: str | None = None
) -> None:
    """Remove the rule of a user or of a plan, which then have that of their plan or of everybody.

    Raises:
        NoSuchRule: it has none, or it would be the one for everybody, which can only be set.
    """
    if user is None and plan is None:
        raise NoSuchRule("the rule for everybody cannot be removed; set it to other percentages")
    removed = connection.execute(
        "DELETE FROM alert_rule WHERE user_id IS NOT DISTINCT FROM %s AND plan IS NOT DISTINCT FROM %s"
        " AND period = %s",
        [user, plan, period],
    ).rowcount
    if not removed:
        who = f"user {user}" if user is not None else f"plan {plan}"
        raise NoSuchRule(f"{who} has no rule of its own for the {period}; `antenna alerts rules` lists them")


def _require_known(connection: psycopg.Connection, user: str | None, plan: str | None) -> None:
    for what, table, key, value in (("user", "user_metadata", "id", user), ("plan", "plan", "name", plan)):
        if value is None:
            continue
        found = connection.execute(f"SELECT FROM {table} WHERE {key} = %s", [value])
        if found.rowcount == 0:
            raise NoSuchRule(f"expected the {key} of a {what} in {table}, found {value!r}")
