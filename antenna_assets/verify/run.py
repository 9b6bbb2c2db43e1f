"""Verifies the hours one by one, and then days and months, each in one snapshot of PostgreSQL."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from antenna_assets.clients.postgres import snapshot
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.schema import HOURLY_TABLES, LAKE_TABLES
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.anchors import Anchor
from antenna_assets.ledger.certificate import Certificate, complete, newest_certificate, publications
from antenna_assets.ledger.lake_identity import require_matching_lake
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import is_local
from antenna_assets.storage.paths import require_store
from antenna_assets.verify.chain import chain_differences, period_chain_differences
from antenna_assets.verify.difference import ABSENT, Difference
from antenna_assets.verify.lake import lake_findings, user_differences
from antenna_assets.verify.landing import Landing
from antenna_assets.verify.ledger import certified_generations, ledger_findings
from antenna_assets.verify.parquet import Parquet
from antenna_assets.verify.periods import PeriodsVerified, published_periods, verify_period
from antenna_assets.verify.publications import lake_table_id
from antenna_assets.verify.tables import table_differences, unpublished_rows


@dataclass
class Verified:
    """The result of a verification.

    Attributes:
        hours: how many hours were compared with their certificate.
        certificates: how many links of the chain were recomputed.
        pending: hours that are not wholly published, or are being published again, each with the reason.
        not_recomputed: hours past the retention of landed files: only what is published was compared.
        periods: how many days and months were compared with their certificate.
    """

    hours: int = 0
    periods: int = 0
    certificates: int = 0
    differences: list[Difference] = field(default_factory=list)
    pending: dict[str, str] = field(default_factory=dict)
    not_recomputed: list[str] = field(default_factory=list)


@dataclass
class _Verification:
    """What the verification of every hour needs, and where its result is collected."""

    connection: psycopg.Connection
    lake: Lake
    landing: Landing
    parquet: Parquet
    kept_since: datetime
    untrusted: set[int]
    verified: Verified


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
    """Recompute what the certificates claim about all closed hours from `first` on and before `end`.

    The chain is recomputed as a whole. A dirty or partly published hour is no difference: it is listed as
    pending, and what is certified of it and still in force is compared. Landed files are compared with the
    ledger whether they are certified or not, those of open hours and rejected messages too.

    Args:
        connection: in autocommit mode.
        kept_since: the files of hours before this instant may have been removed by the retention.
        anchors: hashes of certificates that were kept outside the database.
        progress: called with the number of hours done and of all hours.

    Raises:
        StoreError: the lake's object store cannot be reached.
        WrongLake: this is not the ledger's lake.
    """
    if not is_local(lake.root):
        # Otherwise every file of a store that does not answer would be reported as missing.
        require_store(lake.root)
    require_matching_lake(connection, lake.root)
    verified = Verified()
    with snapshot(connection):
        verified.differences, untrusted = chain_differences(connection, anchors)
    with snapshot(connection):
        verified.differences += unpublished_rows(connection, first, end)
        hours = _hours(connection, first, end)
        verified.certificates = connection.execute("SELECT count(*) FROM ledger.certificate").fetchall()[0][0]
    with closing(Parquet()) as parquet:
        landing = Landing(connection, lake.root, parquet)
        run = _Verification(connection, lake, landing, parquet, kept_since, untrusted, verified)
        for done, hour in enumerate(hours, start=1):
            with snapshot(connection):
                _verify_hour(run, hour)
            progress(done, len(hours))
        if first is None and end is None:
            with snapshot(connection):
                verified.differences += landing.other_rejections()
        _verify_periods(run, first, end, anchors)
    return verified


def _verify_periods(
    run: _Verification, first: datetime | None, end: datetime | None, anchors: Sequence[Anchor]
) -> None:
    """Compare days and months, each in one snapshot."""
    found = PeriodsVerified()
    with snapshot(run.connection):
        found.differences, untrusted = period_chain_differences(run.connection, anchors)
        periods = published_periods(run.connection, first, end)
    for period, day in periods:
        with snapshot(run.connection):
            verify_period(run.connection, run.lake, run.parquet, period, day, untrusted, found)
    run.verified.periods = found.periods
    run.verified.differences += found.differences
    run.verified.pending |= found.pending


def _hours(connection: psycopg.Connection, first: datetime | None, end: datetime | None) -> list[datetime]:
    rows = connection.execute(
        "SELECT hour FROM (SELECT hour FROM ledger.hour WHERE closed_at IS NOT NULL OR rows > 0"
        "  UNION SELECT hour FROM ledger.certificate) AS known"
        " WHERE hour >= coalesce(%s::timestamptz, '-infinity')"
        "  AND hour < coalesce(%s::timestamptz, 'infinity')"
        " ORDER BY hour",
        [first, end],
    )
    return [hour for (hour,) in rows.fetchall()]


def _verify_hour(run: _Verification, hour: datetime) -> None:
    run.verified.differences += certified_generations(run.connection, hour)
    certificate = newest_certificate(run.connection, hour)
    if certificate is None:
        _verify_uncertified(run, hour)
        return
    if certificate.number in run.untrusted:
        return  # The differences of the chain name it.
    key = hour_key(hour)
    run.verified.hours += 1
    ledger = ledger_findings(run.connection, certificate, run.kept_since)
    differences = ledger.differences
    upstream: list[str] | None = None
    if ledger.landing_is_kept:
        landing = run.landing.differences(certificate)
        differences += landing
        differences += run.landing.differences_beyond(hour, certificate.content["up_to_batch"])
        upstream = None if landing else run.landing.paths(certificate)
    else:
        run.verified.not_recomputed.append(key)
    usage, pending = _verify_lake(run, certificate, upstream, differences)
    # Rows of another version of the users are no base for tables that are not published with it yet.
    if "enriched_usage" in ledger.republished or pending:
        usage = None
    if usage is not None:
        differences += user_differences(run.connection, certificate, usage, run.parquet)
    for name, table in HOURLY_TABLES.items():
        if name not in certificate.content["published"]:
            pending.append(f"{name} is newer than the certificate: run the hour again")
        elif name not in ledger.republished:
            differences += table_differences(run.connection, table, certificate, usage, run.parquet)
    run.verified.differences += differences
    if reasons := [reason for reason in (ledger.pending, *pending) if reason]:
        run.verified.pending[key] = "; ".join(reasons)


def _verify_lake(
    run: _Verification, certificate: Certificate, upstream: list[str] | None, differences: list[Difference]
) -> tuple[list[str] | None, list[str]]:
    """Compare both lake tables; return the files of `enriched_usage`, if right, and what is pending."""
    usage: list[str] | None = None
    pending = []
    try:
        for table in LAKE_TABLES:
            table_id = lake_table_id(run.connection, certificate, table)
            findings = lake_findings(run.lake, table, certificate, upstream, run.parquet, table_id=table_id)
            differences += findings.differences
            if findings.pending:
                pending.append(findings.pending)
            usage = findings.paths
            upstream = upstream if upstream is not None else findings.paths
    except AntennaError as error:
        differences.append(
            Difference(hour_key(certificate.hour), "lake", "a table that can be read", str(error))
        )
        usage = None
    return usage, pending


def _verify_uncertified(run: _Verification, hour: datetime) -> None:
    key = hour_key(hour)
    run.verified.differences += run.landing.differences_beyond(hour, 0)
    generation, dirty, closed_at = run.connection.execute(
        "SELECT generation, dirty, closed_at FROM ledger.hour_state WHERE hour = %s",
        [hour],
    ).fetchall()[0]
    if closed_at is None:
        return
    published = publications(run.connection, {hour: generation})[hour]
    if complete(published):
        missing = Difference(key, "certificate", f"one of generation {generation}", ABSENT)
        run.verified.differences.append(missing)
    elif generation and dirty:
        run.verified.pending[key] = "dirty, and none of its generations is wholly published"
    elif any(row["content"] is None for row in published.values()):
        run.verified.pending[key] = "published before there were certificates: run the hour again"
    else:
        run.verified.pending[key] = "not wholly published"
