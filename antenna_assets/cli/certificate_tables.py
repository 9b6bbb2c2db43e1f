"""Certificates and the result of a verification as tables for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.table import Column, Table

from antenna_assets.domain.counted import counted
from antenna_assets.domain.fitting_table import FittingTable
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.listing import and_more
from antenna_assets.domain.safe_text import safe_cell
from antenna_assets.domain.schema import ASSETS
from antenna_assets.ledger.certificate import Certificate
from antenna_assets.ledger.chain import ChainedCertificate
from antenna_assets.ledger.period_publications import PeriodCertificate
from antenna_assets.verify.difference import Difference

SHOWN = 50
"""How many differences, hours and offset ranges are listed; the rest is counted."""


def certificate_tables(certificate: Certificate) -> Iterator[RenderableType]:
    """Yield a certificate as a heading, its facts, its Kafka offsets and what is published."""
    yield _heading(certificate, f"hour {hour_key(certificate.hour)} UTC")
    yield _facts(certificate)
    yield _offsets(certificate.content["offsets"])
    yield _published(certificate.content["published"])


def period_certificate_tables(certificate: PeriodCertificate) -> Iterator[RenderableType]:
    """Yield a certificate of a day or month as a heading, its facts, its hours or days and its tables."""
    yield _heading(certificate, f"the {certificate.period} {certificate.day}")
    yield _period_facts(certificate)
    yield _sources(certificate)
    published = FittingTable("published", *_numbers("rows", "bytes"))
    for table, row in certificate.content["published"].items():
        published.add_row(table, f"{row['rows']:,}", f"{row['bytes']:,}")
    yield published


def _heading(certificate: ChainedCertificate, of: str) -> str:
    issued = f"issued {certificate.issued_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"Certificate {certificate.number:,} of {of}, {issued}"


def _period_facts(certificate: PeriodCertificate) -> Table:
    content = certificate.content
    facts = {"generation": str(certificate.generation), "zone": safe_cell(content["zone"])}
    if certificate.period == "day":
        unknown = content["unknown_users"]
        facts |= {
            "begins": _instant(content["begins"]),
            "ends": _instant(content["ends"]),
            "other zones": counted(content["own_windows"]["users"], "user"),
            "unknown users": f"{unknown['users']:,}, with {counted(unknown['bytes'], 'byte')}",
        }
    return _grid({**facts, **_hashes(certificate)})


def _instant(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"


def _hashes(certificate: ChainedCertificate) -> dict[str, str]:
    return {
        "users' version": f"{certificate.users_version:,}",
        "SHA-256": certificate.sha256,
        "predecessor": certificate.previous_sha256 or "none: this is the first certificate",
    }


def _sources(certificate: PeriodCertificate) -> Table:
    name = "hour" if certificate.period == "day" else "day"
    sources = certificate.content["certificates"]
    table = FittingTable(name, *_numbers("generation", "certificate"), title=f"Its {name}s")
    for one in sources[:SHOWN]:
        table.add_row(one[name], f"{one['generation']:,}", f"{one['number']:,}")
    if rest := and_more(len(sources), SHOWN):
        table.caption = f"{rest}; --json has them all"
    return table


def _numbers(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


def _grid(facts: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, text in facts.items():
        table.add_row(name, text)
    return table


def _facts(certificate: Certificate) -> Table:
    content = certificate.content
    landed, batches, unknown = content["landed"], content["batches"], content["unknown_users"]
    rejected = ", ".join(f"{rows:,} {reason}" for reason, rows in sorted(content["rejected"].items()))
    facts = {
        "generation": f"{certificate.generation}, with all batches up to {content['up_to_batch']:,}",
        "landed": ", ".join(counted(landed[f"{what}s"], what) for what in ("row", "byte", "file")),
        "late": f"{counted(landed['late_rows'], 'row')} arrived after the hour had closed",
        "batches": f"{batches['batches']:,}, with {counted(batches['rows'], 'row')} of this and other hours",
        "rejected": f"in these batches: {rejected or 'none'}",
        "unknown users": (
            f"{unknown['users']:,}, with {counted(unknown['rows'], 'row')} and"
            f" {counted(unknown['bytes'], 'byte')}"
        ),
        **_hashes(certificate),
    }
    return _grid(facts)


def _offsets(ranges: Sequence[Mapping]) -> Table:
    table = FittingTable(
        "topic", *_numbers("partition", "from offset", "until offset"), title="Kafka offsets of its batches"
    )
    for span in ranges[:SHOWN]:
        offsets = (f"{span['from']:,}", f"{span['until']:,}")
        table.add_row(safe_cell(span["topic"]), str(span["partition"]), *offsets)
    if rest := and_more(len(ranges), SHOWN):
        table.caption = f"{rest}; --json has them all"
    return table


def _published(published: Mapping[str, Mapping]) -> Table:
    table = FittingTable("published", *_numbers("rows", "bytes", "Delta version"))
    for asset in ASSETS:
        row = published[asset]
        version = f"{row['delta_version']:,}" if "delta_version" in row else ""
        table.add_row(asset, f"{row['rows']:,}", f"{row['bytes']:,}", version)
    return table


def differences_table(differences: Sequence[Difference]) -> Table:
    """The first differences, and how many more there are."""
    title = counted(len(differences), "difference")
    table = FittingTable(title=title)
    for name in ("hour", "what", "expected", "found"):
        table.add_column(name, overflow="fold", no_wrap=name == "hour")
    for difference in differences[:SHOWN]:
        table.add_row(*(safe_cell(text) for text in vars(difference).values()))
    table.caption = and_more(len(differences), SHOWN) or None
    return table


def pending_table(pending: Mapping[str, str]) -> Table:
    """The hours that are not wholly published, each with the reason."""
    table = FittingTable("hour", "pending")
    for hour, reason in list(pending.items())[:SHOWN]:
        table.add_row(hour, safe_cell(reason))
    table.caption = and_more(len(pending), SHOWN) or None
    return table
