"""The chains of certificates, of hours and of periods: hashes recomputed from the texts, and links checked.

Anchors are hashes kept outside the database: they tie the chain to something that its owner cannot rewrite.
What a certificate claims is verified by the other modules.
"""

import json
from collections.abc import Iterable, Iterator, Sequence

import psycopg

from antenna_assets.ledger.anchors import Anchor, chain_breaks
from antenna_assets.ledger.certificate import Certificate
from antenna_assets.ledger.chain import (
    ChainedCertificate,
    canonical,
    end_of_chain,
    sha256_of,
    whole_chain,
)
from antenna_assets.ledger.period_publications import PeriodCertificate
from antenna_assets.verify.difference import ABSENT, Difference, compare

ALL_HOURS, ALL_PERIODS = "all hours", "all periods"
"""Take the place of the hour or period in differences that concern no single one."""


def chain_differences(
    connection: psycopg.Connection, anchors: Sequence[Anchor] = ()
) -> tuple[list[Difference], set[int]]:
    """What is wrong with the chain of the hours, and the numbers of its certificates not to be trusted.

    In the caller's snapshot. What is wrong with the lines of anchors themselves is among it.
    """
    differences = [
        Difference(
            ALL_HOURS,
            f"anchor of {anchor.name} {anchor.number}, SHA-256 of the line before it",
            expected,
            anchor.after or "",
        )
        for anchor, expected in chain_breaks(anchors)
    ]
    found, untrusted = _chain(connection, Certificate, ALL_HOURS, anchors)
    return differences + found, untrusted


def period_chain_differences(
    connection: psycopg.Connection, anchors: Sequence[Anchor] = ()
) -> tuple[list[Difference], set[int]]:
    """As `chain_differences`, of the chain of days and months."""
    return _chain(connection, PeriodCertificate, ALL_PERIODS, anchors)


def _chain(
    connection: psycopg.Connection, kind: type[ChainedCertificate], whole: str, anchors: Sequence[Anchor]
) -> tuple[list[Difference], set[int]]:
    anchored: dict[int, set[str]] = {}
    for anchor in anchors:
        if anchor.name == kind.NAME:
            anchored.setdefault(anchor.number, set()).add(anchor.sha256)
    differences: list[Difference] = []
    untrusted: set[int] = set()
    number, previous = 0, ""
    for certificate in whole_chain(connection, kind):
        name, what = " ".join(certificate.subject.values()), f"{kind.NAME} {certificate.number}"
        computed = sha256_of(certificate.text)
        found = [
            *_differences(certificate, name, what, number + 1, previous),
            *_anchor_differences(name, what, anchored.pop(certificate.number, ()), computed),
        ]
        if found:
            untrusted.add(certificate.number)
        differences += found
        number, previous = certificate.number, computed
    for missing, hashes in sorted(anchored.items()):
        differences += _anchor_differences(whole, f"{kind.NAME} {missing}", hashes, ABSENT)
    end = end_of_chain(connection, kind) or "no row"
    differences += compare(whole, "end of the chain of certificates", (number, previous), end)
    return differences, untrusted


def _anchor_differences(name: str, what: str, anchored: Iterable[str], found: str) -> Iterator[Difference]:
    for anchor in sorted(anchored):
        if anchor != found:
            yield Difference(name, f"{what}, its anchored SHA-256", anchor, found)


def _differences(
    certificate: ChainedCertificate, name: str, what: str, number: int, previous: str
) -> Iterator[Difference]:
    yield from compare(name, f"{what}, its number", number, certificate.number)
    yield from compare(name, f"{what}, its SHA-256", sha256_of(certificate.text), certificate.sha256)
    yield from compare(name, f"{what}, SHA-256 of the one before it", previous, certificate.previous_sha256)
    subject = certificate.subject
    try:
        signed = json.loads(certificate.text)
        content = signed["content"]
        signed_fields = {
            **{key: signed[key] for key in ("number", "previous_sha256", "issued_at")},
            **{key: content[key] for key in (*subject, "generation", "users_version")},
        }
        canonical_text = canonical(signed)
    except (ValueError, KeyError, TypeError) as error:
        yield Difference(name, f"{what}, its text", "a certificate", f"unreadable: {error}")
        return
    row = {key: getattr(certificate, key) for key in signed_fields}
    row |= {**subject, "issued_at": certificate.issued_at.isoformat()}
    yield from compare(name, f"{what}, its row", signed_fields, row)
    yield from compare(name, f"{what}, its text in canonical form", canonical_text, certificate.text)
