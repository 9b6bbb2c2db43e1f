"""Verifying the hours one after the other, each in one snapshot of PostgreSQL.

What is compared is in the other modules of this folder.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from antenna_assets.clients.postgres import snapshot
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.anchors import Anchor
from antenna_assets.ledger.certificate import complete, newest_certificate, publications
from antenna_assets.ledger.lake_identity import require_not_anothers
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import is_local
from antenna_assets.storage.paths import require_store
from antenna_assets.verify.chain import chain_differences
from antenna_assets.verify.difference import ABSENT, Difference
from antenna_assets.verify.lake import lake_findings, user_differences
from antenna_assets.verify.landing import Landing
from antenna_assets.verify.ledger import lake_table, ledger_findings
from antenna_assets.verify.parquet import Parquet
from antenna_assets.verify.tables import table_differences, unpublished_rows


@dataclass
class Verified:
    """What a verification found.

    Attributes:
        hours: how many hours were compared with their certificate.
        certificates: how many links of the chain were recomputed.
        pending: hours that are not wholly published, or are being published again, each with the reason.
        not_recomputed: hours whose landed files are past their retention, so that only what is published was compared.
    """

    hours: int = 0
    certificates: int = 0
    differences: list[Difference] = field(default_factory=list)
    pending: dict[str, str] = field(default_factory=dict)
    not_recomputed: list[str] = field(default_factory=list)


def verify(
    connection: psycopg.Connection,
    lake: Lake,
    *,
    first: datetime | None = None,
    end: datetime | None = None,
    kept_since: datetime,
    anchors: Sequence[Anchor] = (),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verified:
    """Recompute what the certificates claim, from the files and tables, for all closed hours from `first` on before `end`.

    The chain is recomputed as a whole. An hour that is dirty or not wholly published is no difference; what of it is
    certified and still in force is compared all the same.

    Args:
        connection: in autocommit mode.
        kept_since: hours before it may have lost their landed files to the retention.
        anchors: hashes of certificates that were kept outside the database.
        progress: is told how many hours of how many are done.

    Raises:
        StoreError: the lake's object store cannot be reached.
        WrongLake: this is not the ledger's lake.
    """
    if not is_local(lake.root):
        # Of a store that does not answer, nothing can be said.
        require_store(lake.root)
    require_not_anothers(connection, lake.root)
    verified = Verified()
    differences, unbelievable = chain_differences(connection, anchors)
    verified.differences += differences
    with snapshot(connection):
        verified.differences += unpublished_rows(connection, first, end)
        hours = _hours(connection, first, end)
        verified.certificates = connection.execute("SELECT count(*) FROM ledger.certificate").fetchall()[0][0]
    with closing(Parquet()) as parquet:
        landing = Landing(connection, lake.root, parquet)
        for done, hour in enumerate(hours, start=1):
            with snapshot(connection):
                _verify_hour(connection, lake, landing, parquet, hour, kept_since, unbelievable, verified)
            progress(done, len(hours))
    return verified


def _hours(connection: psycopg.Connection, first: datetime | None, end: datetime | None) -> list[datetime]:
    rows = connection.execute(
        "SELECT hour FROM (SELECT hour FROM ledger.hour WHERE closed_at IS NOT NULL"
        "  UNION SELECT hour FROM ledger.certificate) AS known"
        " WHERE hour >= coalesce(%s::timestamptz, '-infinity') AND hour < coalesce(%s::timestamptz, 'infinity')"
        " ORDER BY hour",
        [first, end],
    )
    return [hour for (hour,) in rows.fetchall()]


def _verify_hour(
    connection: psycopg.Connection,
    lake: Lake,
    landing: Landing,
    parquet: Parquet,
    hour: datetime,
    kept_since: datetime,
    unbelievable: set[int],
    verified: Verified,
) -> None:
    key = hour_key(hour)
    certificate = newest_certificate(connection, hour)
    if certificate is None:
        _verify_no_certificate(connection, hour, verified)
        return
    if certificate.number in unbelievable:
        return  # The chain's differences name it.
    verified.hours += 1
    pending = []
    ledger = ledger_findings(connection, certificate, kept_since)
    differences = ledger.differences
    pending.append(ledger.pending)
    before: list[str] | None = None
    if ledger.landing_is_kept:
        found = landing.differences(certificate)
        differences += found
        before = None if found else landing.paths(certificate)
    else:
        verified.not_recomputed.append(key)
    usage: list[str] | None = None
    try:
        for table in ("raw_parquet", "enriched_usage"):
            in_lake = lake_findings(
                lake, table, certificate, before, parquet, table_id=lake_table(connection, certificate, table)
            )
            differences += in_lake.differences
            pending.append(in_lake.pending)
            usage = in_lake.paths
            before = before if before is not None else in_lake.paths
    except AntennaError as error:
        differences.append(Difference(key, "lake", "a table that can be read", str(error)))
        usage = None
    # Rows of another version of the users are no base for tables that are not there yet.
    if "enriched_usage" in ledger.republished or any(pending[1:]):
        usage = None
    if usage is not None:
        differences += user_differences(connection, certificate, usage, parquet)
    for name, table_ in HOURLY_TABLES.items():
        if name not in ledger.republished:
            differences += table_differences(connection, table_, certificate, usage, parquet)
    verified.differences += differences
    if reasons := [reason for reason in pending if reason]:
        verified.pending[key] = "; ".join(reasons)


def _verify_no_certificate(connection: psycopg.Connection, hour: datetime, verified: Verified) -> None:
    key = hour_key(hour)
    generation, dirty = connection.execute(
        "SELECT hour.generation, hour.rows IS DISTINCT FROM hour_generation.rows FROM ledger.hour"
        " LEFT JOIN ledger.hour_generation USING (hour, generation) WHERE hour = %s",
        [hour],
    ).fetchall()[0]
    published = publications(connection, hour, generation)
    if complete(published):
        verified.differences.append(Difference(key, "certificate", f"one of generation {generation}", ABSENT))
    elif generation and dirty:
        verified.pending[key] = "dirty, and no generation of it is wholly published"
    elif any(row["content"] is None for row in published.values()):
        verified.pending[key] = "published before there were certificates: run the hour again"
    else:
        verified.pending[key] = "not wholly published"
