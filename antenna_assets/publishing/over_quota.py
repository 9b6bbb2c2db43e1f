"""Users over the quota of a day or month: computed in PostgreSQL, by the quota in force at its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
from psycopg import sql

from antenna_assets.domain.periods import next_period
from antenna_assets.domain.schema import PeriodTable
from antenna_assets.ledger.period_generations import PeriodGeneration
from antenna_assets.ledger.period_publications import PeriodCertificate
from antenna_assets.publishing.csv_rows import CSV_SHA256, copied_sha256


@dataclass(frozen=True)
class PublishedPeriod:
    """A day or month that was published.

    Attributes:
        content: what is certified: its windows, and rows, bytes and digest of each table.
        certificate: None if the one before says the same.
    """

    generation: PeriodGeneration
    users_version: int
    content: Mapping[str, Any]
    certificate: PeriodCertificate | None


@dataclass(frozen=True)
class OverQuota:
    """The rows of users over quota, and the version of the users that their quotas are of."""

    users_version: int
    content: Mapping[str, Any]


EXPECTED = {
    "day": """
        SELECT used.day, used.id, used.date, used.email, force.quota, used.sum_user_bytes
        FROM bytes_agg_user_1d AS used JOIN ledger.quotas_at_end('day', %(day)s) AS force USING (id)
        WHERE used.day = %(day)s AND used.sum_user_bytes > force.quota
    """,
    # From the month's days. `date` is where the first of them begins, with bytes or without.
    "month": """
        SELECT %(day)s::date AS month, used.id,
            ledger.period_start('month', %(day)s, ledger.user_zone(used.id, %(day)s)) AS date,
            (SELECT day.email FROM bytes_agg_user_1d AS day WHERE day.id = used.id AND day.day >= %(day)s
                AND day.day < %(next)s AND day.email IS NOT NULL ORDER BY day.day DESC LIMIT 1) AS email,
            force.quota, used.sum_user_bytes
        FROM (
            SELECT id, sum(sum_user_bytes) AS sum_user_bytes FROM bytes_agg_user_1d
            WHERE day >= %(day)s AND day < %(next)s GROUP BY id
        ) AS used JOIN ledger.quotas_at_end('month', %(day)s) AS force USING (id)
        WHERE used.sum_user_bytes > force.quota
    """,
}
"""Who is over quota in the period from the day `day` to before `next`, by the rows and quotas of now."""


def replace_over_quota(connection: psycopg.Connection, table: PeriodTable, day: date) -> OverQuota:
    """Replace the users over quota of a period, in the caller's transaction, in which its fence is passed."""
    name, key = sql.Identifier(table.name), sql.Identifier(table.day)
    connection.execute(sql.SQL("DELETE FROM {} WHERE {} = %s").format(name, key), [day])
    # One statement: the quotas and their version are of one snapshot.
    ((users_version, rows, bytes_),) = connection.execute(
        sql.SQL(
            "WITH inserted AS (INSERT INTO {} {} RETURNING sum_user_bytes)"
            " SELECT (SELECT version FROM ledger.users_version), count(*), coalesce(sum(sum_user_bytes), 0)"
            " FROM inserted"
        ).format(name, sql.SQL(EXPECTED[table.period])),
        {"day": day, "next": next_period(table.period, day)},
    ).fetchall()
    content = {"rows": rows, "bytes": int(bytes_), CSV_SHA256: stored_period_sha256(connection, table, day)}
    return OverQuota(users_version, content)


def stored_period_sha256(connection: psycopg.Connection, table: PeriodTable, day: date) -> str:
    """The digest of a period as a table holds it now: of its rows as CSV, in the order of the ids' bytes."""
    copy = sql.SQL(
        'COPY (SELECT {} FROM {} WHERE {} = {} ORDER BY id COLLATE "C") TO STDOUT (FORMAT csv, FORCE_QUOTE *)'
    ).format(
        sql.SQL(", ").join(map(sql.Identifier, table.columns.names)),
        sql.Identifier(table.name),
        sql.Identifier(table.day),
        sql.Literal(day),
    )
    return copied_sha256(connection, copy)
