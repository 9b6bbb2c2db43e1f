"""The ledger's rows of an hour compared with its certificate: batches, offsets, rejections and sums.

No file and no row of a serving table is read here. Generations and publications are compared in
`publications.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from antenna_assets.domain.hours import hour_key
from antenna_assets.ledger.certificate import Certificate
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.generations import read_generation
from antenna_assets.ledger.landing import LandingFacts, LandingUnknown, landing_facts, landing_of
from antenna_assets.verify.difference import ABSENT, Difference, compare
from antenna_assets.verify.publications import publication_findings


@dataclass
class LedgerFindings:
    """How the ledger's rows of a certified hour compare.

    Attributes:
        landing_is_kept: False once the hour is past its retention and the ledger has no files of it left.
        republished: assets that are ahead of the certificate, so that it does not describe their rows.
        pending: why the hour is not wholly published; None if it is.
    """

    differences: list[Difference] = field(default_factory=list)
    landing_is_kept: bool = True
    republished: set[str] = field(default_factory=set)
    pending: str | None = None


def ledger_findings(
    connection: psycopg.Connection, certificate: Certificate, kept_since: datetime
) -> LedgerFindings:
    """Compare the ledger's rows with the certificate, in the caller's snapshot.

    Args:
        kept_since: the files of hours before this instant may have been removed by the retention.
    """
    content, hour = certificate.content, certificate.hour
    key = hour_key(hour)
    findings = LedgerFindings()
    landed = landing_facts(connection, hour, content["up_to_batch"])
    certified = {name: content[name] for name in landed}
    findings.landing_is_kept = hour >= kept_since or landed["landed"]["files"] > 0
    if findings.landing_is_kept:
        # Which rows were late depends on when the hour closed, and `antenna reopen` lets it close again: late
        # rows are compared with what was recorded at the seal, below.
        late = {"late_rows": certified["landed"]["late_rows"]}
        landed = {**landed, "landed": {**landed["landed"], **late}}
        findings.differences += compare(key, "ledger", certified, landed)
        findings.differences += _sums(connection, hour, content["up_to_batch"])
    findings.differences += _landing(connection, certificate, certified)
    published = publication_findings(connection, certificate)
    findings.differences += published.differences
    findings.republished = published.republished
    findings.pending = (
        published.pending or _dirty(connection, certificate) or _unsettled(connection, certificate)
    )
    return findings


def certified_generations(connection: psycopg.Connection, hour: datetime) -> Iterator[Difference]:
    """Compare which generations of an hour are said to be certified with those that have a certificate."""
    for generation, said, has_certificate in connection.execute(
        "SELECT generation, certified, EXISTS (SELECT FROM ledger.certificate"
        "  WHERE (certificate.hour, certificate.generation) = (sealed.hour, sealed.generation))"
        " FROM ledger.hour_generation AS sealed WHERE hour = %s ORDER BY generation",
        [hour],
    ):
        what = f"ledger, generation {generation} is certified"
        yield from compare(hour_key(hour), what, has_certificate, said)


def _landing(
    connection: psycopg.Connection, certificate: Certificate, certified: LandingFacts
) -> Iterator[Difference]:
    """Compare what was recorded at the seal with what is certified, also when no file is left.

    A certificate that an earlier version issued past the horizon says that nothing landed. It stays in the
    chain, and is named here until the sensor has published the hour again, with a new certificate.
    """
    key = hour_key(certificate.hour)
    try:
        sealed = read_generation(connection, certificate.hour, certificate.generation)
        landed = landing_of(connection, sealed)
    except LandingUnknown as unknown:
        yield Difference(
            key, "ledger, what landed for the generation", str(certified["landed"]), str(unknown)
        )
    except LedgerError:
        return  # `publications` names the missing generation.
    else:
        yield from compare(key, "ledger, as sealed", certified, landed)


def _sums(connection: psycopg.Connection, hour: datetime, up_to_batch: int) -> Iterator[Difference]:
    """Compare the sums that the ledger keeps with the rows that they sum up."""
    key = hour_key(hour)
    with connection.cursor(row_factory=dict_row) as cursor:
        kept = cursor.execute("SELECT rows, bytes FROM ledger.hour WHERE hour = %s", [hour]).fetchone()
        files = cursor.execute(
            "SELECT coalesce(sum(rows), 0)::bigint AS rows, coalesce(sum(bytes), 0)::bigint AS bytes"
            " FROM ledger.file WHERE kind = 'landed' AND hour = %s",
            [hour],
        ).fetchone()
        yield from compare(key, "ledger, sums of the hour's files", files, kept or ABSENT)
        batches = cursor.execute(
            "SELECT batch, quarantined, rows, bytes,"
            " (SELECT coalesce(sum(r.rows), 0)::bigint FROM ledger.rejection AS r"
            "  WHERE r.batch = b.batch) AS rejections,"
            " (SELECT coalesce(sum(f.rows), 0)::bigint FROM ledger.file AS f"
            "  WHERE f.batch = b.batch AND f.kind = 'landed' AND f.batches IS NULL) AS file_rows,"
            " (SELECT coalesce(sum(f.bytes), 0)::bigint FROM ledger.file AS f"
            "  WHERE f.batch = b.batch AND f.kind = 'landed' AND f.batches IS NULL) AS file_bytes"
            " FROM ledger.batch AS b WHERE batch IN (SELECT of FROM ledger.file,"
            "   ledger.batches_of(file.batch, file.batches) AS of"
            "  WHERE kind = 'landed' AND hour = %s AND file.batch <= %s) ORDER BY batch",
            [hour, up_to_batch],
        ).fetchall()
        merged = cursor.execute(
            "SELECT path, file.rows AS file_rows, file.bytes AS file_bytes, of_batches.rows, of_batches.bytes"
            " FROM ledger.file CROSS JOIN LATERAL"
            "  (SELECT coalesce(sum(b.rows), 0)::bigint AS rows, coalesce(sum(b.bytes), 0) AS bytes"
            "   FROM ledger.batch AS b"
            "   WHERE b.batch IN (SELECT ledger.batches_of(file.batch, file.batches))) AS of_batches"
            " WHERE kind = 'landed' AND hour = %s AND file.batch <= %s AND batches IS NOT NULL ORDER BY path",
            [hour, up_to_batch],
        ).fetchall()
    for row in batches:
        what = f"ledger, batch {row['batch']}"
        yield from compare(key, f"{what}, quarantined", row["rejections"], row["quarantined"])
        yield from _no_more_than(key, what, row)
    for row in merged:
        yield from _no_more_than(key, f"ledger, the batches of {row['path']}", row)


def _no_more_than(key: str, what: str, row: dict[str, Any]) -> Iterator[Difference]:
    """Require that files have no more rows and bytes than their batches.

    They may have fewer: batches have files of other hours too, which may be past their retention.
    """
    if row["file_rows"] > row["rows"] or row["file_bytes"] > row["bytes"]:
        expected = {"rows": row["file_rows"], "bytes": row["file_bytes"]}
        yield from compare(key, what, expected, {name: int(row[name]) for name in expected})


def _dirty(connection: psycopg.Connection, certificate: Certificate) -> str | None:
    row = connection.execute(
        "SELECT generation, state.dirty, state.rows - coalesce(sealed.rows, 0)"
        " FROM ledger.hour_state AS state"
        " LEFT JOIN ledger.hour_generation AS sealed USING (hour, generation) WHERE hour = %s",
        [certificate.hour],
    ).fetchone()
    if row is None:
        return "the ledger has no row of the hour"
    if row[0] != certificate.generation:
        return f"generation {row[0]} is sealed and not published"
    if row[1]:
        return f"dirty: generation {row[0]} is without {row[2]:,} late rows"
    return None


def _unsettled(connection: psycopg.Connection, certificate: Certificate) -> str | None:
    """Why the sensor still requests the hour, although its newest generation is certified."""
    rows = connection.execute(
        "SELECT asset FROM ledger.unsettled_publication WHERE hour = %s ORDER BY asset",
        [certificate.hour],
    ).fetchall()
    assets = ", ".join(asset for (asset,) in rows)
    return (
        f"{assets}: a run began to publish it again and did not finish: run the hour again" if rows else None
    )
