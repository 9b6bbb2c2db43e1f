"""Certificates and the result of a verification as tables for a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Column, Table

from antenna_assets.domain.counted import counted
from antenna_assets.domain.fitting_table import FittingTable
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.listing import and_more
from antenna_assets.domain.safe_text import safe_cell
from antenna_assets.domain.schema import ASSETS
from antenna_assets.ledger.certificate import Certificate
from antenna_assets.verify.difference import Difference

SHOWN = 50
"""How many differences, hours and offset ranges are listed; the rest is counted."""


def certificate_tables(certificate: Certificate) -> Iterator[RenderableType]:
    """Yield a certificate as a heading, its facts, its Kafka offsets and what is published."""
    yield (
        f"Certificate {certificate.number:,} of hour {hour_key(certificate.hour)} UTC,"
        f" issued {certificate.issued_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    yield _facts(certificate)
    yield _offsets(certificate.content["offsets"])
    yield _published(certificate.content["published"])


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
        "users' version": f"{certificate.users_version:,}",
        "SHA-256": certificate.sha256,
        "predecessor": certificate.previous_sha256 or "none: this is the first certificate",
    }
    table = Table.grid(padding=(0, 2))
    for name, text in facts.items():
        table.add_row(name, text)
    return table


def _offsets(ranges: Sequence[Mapping]) -> Table:
    columns = [Column(name, justify="right") for name in ("partition", "from offset", "until offset")]
    table = FittingTable("topic", *columns, title="Kafka offsets of its batches")
    for span in ranges[:SHOWN]:
        offsets = (f"{span['from']:,}", f"{span['until']:,}")
        table.add_row(safe_cell(span["topic"]), str(span["partition"]), *offsets)
    if rest := and_more(len(ranges), SHOWN):
        table.caption = f"{rest}; --json has them all"
    return table


def _published(published: Mapping[str, Mapping]) -> Table:
    columns = [Column(name, justify="right") for name in ("rows", "bytes", "Delta version")]
    table = FittingTable("published", *columns)
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
