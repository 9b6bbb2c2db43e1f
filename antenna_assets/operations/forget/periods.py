"""A user's id in the tables of days and months.

The rows are changed in place and certified by the next publication of the period: its hours have new
certificates by then, so that the sensor asks for it, and `antenna verify` lists it as pending until then.
"""

from datetime import date

import psycopg
from psycopg import sql

from antenna_assets.domain.schema import PERIOD_TABLES, PeriodTable
from antenna_assets.operations.forget.identity import EMAIL, Identity


def replace_periods(connection: psycopg.Connection, identity: Identity) -> int:
    """Replace the id in the tables of days and months; returns in how many of their periods it was."""
    found = 0
    for table in PERIOD_TABLES.values():
        for day in _periods_with(connection, table, identity.id):
            with connection.transaction():
                # As a publication's fence: who publishes the period waits, or is waited for.
                connection.execute(
                    "SELECT FROM ledger.period_head WHERE period = %s AND day = %s FOR UPDATE",
                    [table.period, day],
                )
                _replace(connection, table, day, identity)
            found += 1
    return found


def _periods_with(connection: psycopg.Connection, table: PeriodTable, user: str) -> list[date]:
    """The periods with the user, by the key of the table: it begins with the period."""
    query = sql.SQL(
        "SELECT head.day FROM ledger.period_head AS head"
        " JOIN {} AS used ON used.{} = head.day AND used.id = %s"
        " WHERE head.period = %s ORDER BY head.day"
    ).format(sql.Identifier(table.name), sql.Identifier(table.day))
    return [day for (day,) in connection.execute(query, [user, table.period])]


def _replace(connection: psycopg.Connection, table: PeriodTable, day: date, identity: Identity) -> None:
    names = {"table": sql.Identifier(table.name), "day": sql.Identifier(table.day)}
    values = {"day": day, "old": identity.id, "new": identity.pseudonym, "email": EMAIL}
    # Late events that came after an earlier attempt.
    merged = connection.execute(
        sql.SQL(
            "UPDATE {table} AS kept SET sum_user_bytes = kept.sum_user_bytes + late.sum_user_bytes"
            " FROM {table} AS late WHERE kept.{day} = %(day)s AND kept.id = %(new)s"
            " AND late.{day} = %(day)s AND late.id = %(old)s"
        ).format(**names),
        values,
    ).rowcount
    change = (
        "DELETE FROM {table} WHERE {day} = %(day)s AND id = %(old)s"
        if merged
        else "UPDATE {table} SET id = %(new)s, email = CASE WHEN email IS NULL THEN NULL ELSE %(email)s END"
        " WHERE {day} = %(day)s AND id = %(old)s"
    )
    connection.execute(sql.SQL(change).format(**names), values)
