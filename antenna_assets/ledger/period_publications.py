"""Publications and certificates of days and months: a period's tables are published in one transaction.

The certificates have a chain of their own. The text of a day's names the certificates of its hours with their
hashes, that of a month's those of its days: so it depends on every certificate before it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from antenna_assets.domain.periods import Period
from antenna_assets.errors import Superseded, Version
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.certificate import NoCertificate
from antenna_assets.ledger.chain import ChainedCertificate, canonical, issue, newest
from antenna_assets.ledger.period_generations import PeriodGeneration


@dataclass(frozen=True)
class PeriodCertificate(ChainedCertificate):
    """The certificate of a day or month."""

    NAME = "period certificate"
    TABLE = "period_certificate"

    period: Period
    day: date

    @property
    def subject(self) -> dict[str, str]:
        """The period."""
        return {"period": self.period, "day": self.day.isoformat()}


def move_period_head(connection: psycopg.Connection, sealed: PeriodGeneration) -> None:
    """The fence: move the period's head to this generation, and lock it until the transaction ends.

    Raises:
        Superseded: a newer generation is published.
    """
    fence = connection.execute(
        "INSERT INTO ledger.period_head AS head (period, day, generation, users_version, asked_users_version)"
        " VALUES (%(period)s, %(day)s, %(generation)s, 0, 0)"
        " ON CONFLICT (period, day) DO UPDATE SET generation = excluded.generation"
        " WHERE head.generation <= excluded.generation RETURNING generation",
        {"period": sealed.period, "day": sealed.day, "generation": sealed.generation},
    ).fetchone()
    if fence is None:
        ((held,),) = connection.execute(
            "SELECT generation FROM ledger.period_head WHERE period = %s AND day = %s",
            [sealed.period, sealed.day],
        ).fetchall()
        raise Superseded(f"the {sealed.period} {sealed.day}", Version(sealed.generation), Version(held))


def record_period(
    connection: psycopg.Connection,
    sealed: PeriodGeneration,
    users_version: int,
    run_id: str,
    content: Mapping[str, Any],
) -> PeriodCertificate | None:
    """Record what was published of a period whose head was moved in this transaction, and certify it.

    Args:
        users_version: of the quotas.
        content: what is certified besides the identity of the generation and its sources.

    Returns:
        The certificate; None if the newest one of the period says the same.
    """
    connection.execute(
        "UPDATE ledger.period_head SET users_version = %(users)s, published_at = clock_timestamp(),"
        " asked_users_version = greatest(asked_users_version, %(users)s)"
        " WHERE period = %(period)s AND day = %(day)s",
        {"users": users_version, "period": sealed.period, "day": sealed.day},
    )
    connection.execute(
        "INSERT INTO ledger.period_publication (period, day, generation, users_version, run_id, content)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        [sealed.period, sealed.day, sealed.generation, users_version, run_id, Jsonb(dict(content))],
    )
    certified = {
        "period": sealed.period,
        "day": sealed.day.isoformat(),
        "generation": sealed.generation,
        "users_version": users_version,
        "certificates": certified_sources(connection, sealed),
        **content,
    }
    before = newest_period_certificate(connection, sealed.period, sealed.day)
    if before is not None and before.content == json.loads(canonical(certified)):
        return None
    issued = issue(connection, PeriodCertificate, certified, period=sealed.period, day=sealed.day)
    commit_point("period.certified")
    return issued


def certified_sources(connection: psycopg.Connection, sealed: PeriodGeneration) -> list[dict[str, Any]]:
    """The certificates that a generation is sealed from: of the hours of a day, or of the days of a month."""
    if sealed.period == "day":
        query = (
            "SELECT to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD-HH24:MI'), generation, number, sha256"
            " FROM ledger.certificate WHERE number = ANY(%s) ORDER BY hour"
        )
    else:
        query = (
            "SELECT day::text, generation, number, sha256 FROM ledger.period_certificate"
            " WHERE number = ANY(%s) ORDER BY day"
        )
    name = "hour" if sealed.period == "day" else "day"
    rows = connection.execute(query.encode(), [list(sealed.certificates)])
    return [
        {name: key, "generation": generation, "number": number, "sha256": sha256}
        for key, generation, number, sha256 in rows
    ]


def newest_period_certificate(
    connection: psycopg.Connection, period: Period, day: date
) -> PeriodCertificate | None:
    """The period's newest certificate; None if it has none."""
    return newest(connection, PeriodCertificate, period=period, day=day)


def require_period_certificate(
    connection: psycopg.Connection, period: Period, day: date
) -> PeriodCertificate:
    """The period's newest certificate.

    Raises:
        NoCertificate: the period has none.
    """
    found = newest_period_certificate(connection, period, day)
    if found is None:
        parts = "hours that it touches" if period == "day" else "days"
        raise NoCertificate(
            f"the {period} {day} has no certificate: one is issued when it is published, after all {parts};"
            " `antenna status` shows what is due"
        )
    return found
