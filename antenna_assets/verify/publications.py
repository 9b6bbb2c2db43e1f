"""The publications of an hour compared with its certificate: generation, certified rows and heads.

What landed for the generation, and the sums over it, are compared in `ledger.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from antenna_assets.domain.hours import hour_key
from antenna_assets.ledger.certificate import (
    Certificate,
    complete,
    publications,
    published_content,
    without_publication_numbers,
)
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.generations import read_generation
from antenna_assets.verify.difference import ABSENT, Difference, compare


@dataclass
class PublicationFindings:
    """How the publications of a certified hour compare.

    Attributes:
        republished: assets that are ahead of the certificate, so that it does not describe their rows.
        pending: why the hour is not wholly published; None if it is.
    """

    differences: list[Difference] = field(default_factory=list)
    republished: set[str] = field(default_factory=set)
    pending: str | None = None


def publication_findings(connection: psycopg.Connection, certificate: Certificate) -> PublicationFindings:
    """Compare the publications of an hour with its certificate, in the caller's snapshot."""
    findings = PublicationFindings()
    changed = [*_generation(connection, certificate), *_certified_rows(connection, certificate)]
    findings.differences += changed
    _compare_heads(connection, certificate, findings)
    if findings.pending is None and not changed:
        _compare_newest(connection, certificate, findings)
    return findings


def lake_table_id(connection: psycopg.Connection, certificate: Certificate, asset: str) -> str | None:
    """Return Delta's id of the table that the hour was published in; None if it was not recorded."""
    row = connection.execute(
        "SELECT lake_table FROM ledger.publication WHERE number = %s",
        [certificate.content["published"][asset]["publication"]],
    ).fetchone()
    return row[0] if row else None


def _generation(connection: psycopg.Connection, certificate: Certificate) -> Iterator[Difference]:
    content = certificate.content
    what = f"generation {certificate.generation}"
    expected = {"up_to_batch": content["up_to_batch"], **_rows_and_bytes(content["landed"])}
    try:
        sealed = read_generation(connection, certificate.hour, certificate.generation)
    except LedgerError:
        yield Difference(hour_key(certificate.hour), what, str(expected), ABSENT)
        return
    found = {name: getattr(sealed, name) for name in expected}
    yield from compare(hour_key(certificate.hour), what, expected, found)


def _certified_rows(connection: psycopg.Connection, certificate: Certificate) -> Iterator[Difference]:
    """Compare the very rows that were certified: `ledger.publication` is append-only."""
    certified = certificate.content["published"]
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT number, asset, hour, generation, rows, bytes, users_version, lake_version"
            " FROM ledger.publication WHERE number = ANY(%s)",
            [[published["publication"] for published in certified.values()]],
        ).fetchall()
    found = {row.pop("number"): row for row in rows}
    for asset, published in certified.items():
        number = published["publication"]
        expected = {
            "asset": asset,
            "hour": certificate.hour,
            "generation": certificate.generation,
            **_rows_and_bytes(published),
            "users_version": None if asset == "raw_parquet" else certificate.content["users_version"],
            "lake_version": published.get("delta_version"),
        }
        what = f"publication {number} of {asset}"
        yield from compare(hour_key(certificate.hour), what, expected, found.get(number, ABSENT))


def _compare_heads(
    connection: psycopg.Connection, certificate: Certificate, findings: PublicationFindings
) -> None:
    heads: dict[str, tuple[int, bool]] = {
        asset: (generation, recorded)
        for asset, generation, recorded in connection.execute(
            "SELECT asset, generation, EXISTS (SELECT FROM ledger.publication AS p WHERE p.asset = head.asset"
            "  AND p.hour = head.hour AND p.generation = head.generation"
            "  AND p.users_version IS NOT DISTINCT FROM head.users_version)"
            " FROM ledger.publication_head AS head WHERE hour = %s",
            [certificate.hour],
        )
    }
    for asset in certificate.content["published"]:
        generation, recorded = heads.get(asset, (0, False))
        if generation > certificate.generation and recorded:
            findings.republished.add(asset)
            findings.pending = f"generation {generation} is not wholly published"
        elif generation != certificate.generation or not recorded:
            findings.differences.append(
                Difference(
                    hour_key(certificate.hour),
                    f"publication_head of {asset}",
                    f"generation {certificate.generation} as a publication has it",
                    f"generation {generation}" if generation else ABSENT,
                )
            )


def _compare_newest(
    connection: psycopg.Connection, certificate: Certificate, findings: PublicationFindings
) -> None:
    """Compare the newest publications of the certified generation: a later run may have repeated them."""
    content, hour = certificate.content, certificate.hour
    newest = publications(connection, {hour: certificate.generation})[hour]
    if complete(newest):
        current = published_content(connection, hour, newest)
        expected, found = (
            {name: without_publication_numbers(text)[name] for name in ("published", "unknown_users")}
            for text in (content, current)
        )
        findings.differences += compare(hour_key(hour), "newest publications", expected, found)
    elif newest.keys() == content["published"].keys():
        findings.pending = "its assets are of different versions of the users: run the hour again"
        findings.republished |= {
            asset
            for asset, row in newest.items()
            if row["number"] != content["published"][asset]["publication"]
        }


def _rows_and_bytes(counted: Mapping[str, Any]) -> dict[str, int]:
    return {name: counted[name] for name in ("rows", "bytes")}
