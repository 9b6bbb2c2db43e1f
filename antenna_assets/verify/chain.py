"""The chain of certificates: every hash recomputed from its text, and every link to the predecessor checked.

Anchors are hashes kept outside the database: they tie the chain to something that its owner cannot rewrite.
What a certificate claims about its hour is verified by the other modules.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import class_row

from antenna_assets.domain.hours import hour_key
from antenna_assets.ledger.anchors import Anchor, chain_breaks
from antenna_assets.ledger.certificate import Certificate, canonical, sha256_of
from antenna_assets.verify.difference import ABSENT, Difference, compare

WHOLE_CHAIN = "all hours"
"""Takes the place of the hour in differences that concern no single one."""


def chain_differences(
    connection: psycopg.Connection, anchors: Sequence[Anchor] = ()
) -> tuple[list[Difference], set[int]]:
    """Return what is wrong with the chain, and the numbers of the certificates that are not to be trusted."""
    differences = [
        Difference(
            WHOLE_CHAIN,
            f"anchor of certificate {anchor.number}, SHA-256 of the line before it",
            expected,
            anchor.after or "",
        )
        for anchor, expected in chain_breaks(anchors)
    ]
    anchored: dict[int, set[str]] = {}
    for anchor in anchors:
        anchored.setdefault(anchor.number, set()).add(anchor.sha256)
    untrusted: set[int] = set()
    number, previous = 0, ""
    with connection.transaction(), connection.cursor(row_factory=class_row(Certificate)) as cursor:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        head = connection.execute("SELECT number, sha256 FROM ledger.certificate_head").fetchone()
        cursor.execute(
            "SELECT number, hour, generation, users_version, issued_at, text, previous_sha256, sha256"
            " FROM ledger.certificate ORDER BY number"
        )
        for certificate in cursor:
            found = _differences(certificate, number + 1, previous)
            found += _anchor_differences(
                hour_key(certificate.hour),
                certificate.number,
                anchored.pop(certificate.number, ()),
                sha256_of(certificate.text),
            )
            if found:
                untrusted.add(certificate.number)
            differences += found
            number, previous = certificate.number, sha256_of(certificate.text)
    for missing, hashes in sorted(anchored.items()):
        differences += _anchor_differences(WHOLE_CHAIN, missing, hashes, ABSENT)
    differences += compare(
        WHOLE_CHAIN, "end of the chain of certificates", (number, previous), head or "no row"
    )
    return differences, untrusted


def _anchor_differences(hour: str, number: int, anchored: Iterable[str], found: str) -> list[Difference]:
    return [
        Difference(hour, f"certificate {number}, its anchored SHA-256", anchor, found)
        for anchor in sorted(anchored)
        if anchor != found
    ]


def _differences(certificate: Certificate, number: int, previous: str) -> list[Difference]:
    hour = hour_key(certificate.hour)
    what = f"certificate {certificate.number}"
    differences = [
        *compare(hour, f"{what}, its number", number, certificate.number),
        *compare(hour, f"{what}, its SHA-256", sha256_of(certificate.text), certificate.sha256),
        *compare(hour, f"{what}, SHA-256 of the one before it", previous, certificate.previous_sha256),
    ]
    try:
        signed = json.loads(certificate.text)
        content = signed["content"]
        signed_fields: Mapping[str, Any] = {
            "number": signed["number"],
            "previous_sha256": signed["previous_sha256"],
            "issued_at": signed["issued_at"],
            "hour": content["hour"],
            "generation": content["generation"],
            "users_version": content["users_version"],
        }
        canonical_text = canonical(signed)
    except (ValueError, KeyError, TypeError) as error:
        return [*differences, Difference(hour, f"{what}, its text", "a certificate", f"unreadable: {error}")]
    row = {name: getattr(certificate, name) for name in signed_fields}
    row |= {"hour": hour, "issued_at": certificate.issued_at.isoformat()}
    differences += compare(hour, f"{what}, its row", signed_fields, row)
    differences += compare(hour, f"{what}, its text in canonical form", canonical_text, certificate.text)
    return differences
