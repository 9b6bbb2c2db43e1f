"""The billing zone: ANTENNA_BILLING_ZONE, recorded in the ledger, where SQL functions read it.

Where a period begins in it is defined by the SQL function `ledger.period_start`.
"""

import psycopg

from antenna_assets.clients.advisory_locks import ZONES
from antenna_assets.domain.counted import counted
from antenna_assets.errors import AntennaError


class BillingZoneRefused(AntennaError):
    """ANTENNA_BILLING_ZONE is not the zone of the ledger's periods; the message says what to do."""


def recorded_zone(connection: psycopg.Connection) -> str:
    """The billing zone of the ledger."""
    ((zone,),) = connection.execute("SELECT zone FROM ledger.billing_zone").fetchall()
    return zone


def record_billing_zone(connection: psycopg.Connection, zone: str) -> None:
    """Record the zone, as `antenna up` does.

    Args:
        zone: known to zoneinfo, by its exact name.

    Raises:
        BillingZoneRefused: PostgreSQL does not know it, or a day is published in another one. Nothing was
            changed.
    """
    # By name: in an expression PostgreSQL takes abbreviations and offsets as well.
    known = connection.execute("SELECT FROM pg_timezone_names WHERE name = %s", [zone]).fetchone()
    if known is None:
        raise BillingZoneRefused(
            f"ANTENNA_BILLING_ZONE: expected a time zone that PostgreSQL knows, found {zone}, which is not "
            "in its pg_timezone_names; choose another name of the zone, or update PostgreSQL's time zones"
        )
    with connection.transaction():
        # Who publishes a period holds it shared until its COMMIT.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [ZONES])
        recorded = recorded_zone(connection)
        if recorded == zone:
            return
        ((newest, count),) = connection.execute(
            "SELECT max(day), count(*) FROM ledger.period_head WHERE period = 'day'"
        ).fetchall()
        if count:
            raise BillingZoneRefused(
                f"ANTENNA_BILLING_ZONE: expected {recorded}, in which "
                f"{counted(count, 'day is', 'days are')} published up to {newest}, found {zone}: days in "
                "two zones would overlap or leave a gap, so set it to "
                f"{recorded} again"
            )
        connection.execute("UPDATE ledger.billing_zone SET zone = %s", [zone])


def require_billing_zone(connection: psycopg.Connection, zone: str) -> None:
    """Require that a process has the zone of the ledger, by which its partitions are named.

    Raises:
        BillingZoneRefused: it has another.
    """
    recorded = recorded_zone(connection)
    if recorded != zone:
        raise BillingZoneRefused(
            f"ANTENNA_BILLING_ZONE: expected {recorded}, the zone of the ledger, found {zone}; set it to "
            f"{recorded} for every process, or run `antenna up` with {zone}, which records it if no day is"
            " published yet"
        )
