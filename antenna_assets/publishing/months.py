"""Publishing a month: who was over the quota of the month, from its days as they are published."""

from datetime import date

import psycopg

from antenna_assets.clients.advisory_locks import ZONES
from antenna_assets.domain.schema import PERIOD_TABLES
from antenna_assets.ledger.billing_zone import require_billing_zone
from antenna_assets.ledger.period_generations import seal_month
from antenna_assets.ledger.period_publications import move_period_head, record_period
from antenna_assets.ledger.publications import require_nobody_forgotten
from antenna_assets.publishing.over_quota import PublishedPeriod, replace_over_quota

OVER = PERIOD_TABLES["users_over_quota_1mo"]


def publish_month(connection: psycopg.Connection, month: date, zone: str, run_id: str) -> PublishedPeriod:
    """Publish a month from the newest certificates of its days, in one transaction.

    Args:
        connection: in autocommit mode.
        zone: ANTENNA_BILLING_ZONE of this process.

    Raises:
        BillingZoneRefused: it is not the ledger's.
        PeriodNotReady: a day of the month is not published or not up to date.
        ForgottenMeanwhile: a user was forgotten since the run began.
        Superseded: a newer generation of the month is published.
            After each of these nothing was changed.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", [ZONES])
        require_billing_zone(connection, zone)
        sealed = seal_month(connection, month)
        move_period_head(connection, sealed)
        over = replace_over_quota(connection, OVER, month)
        content = {"zone": zone, "published": {OVER.name: over.content}}
        certificate = record_period(connection, sealed, over.users_version, run_id, content)
        require_nobody_forgotten(connection)
    return PublishedPeriod(sealed, over.users_version, content, certificate)
