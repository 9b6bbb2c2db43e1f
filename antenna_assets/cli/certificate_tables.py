"""How certificates and the findings of a verification look on a terminal.

What they hold is in `ledger/certificate.py` and `verify/`.
"""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Column, Table

from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.listing import and_more
from antenna_assets.domain.safe_text import safe_cell
from antenna_assets.domain.schema import ASSETS
from antenna_assets.ledger.certificate import Certificate
from antenna_assets.verify.difference import Difference

SHOWN = 50
"""Differences and hours that are listed; the others are counted."""


def lines(certificate: Certificate) -> Iterator[RenderableType]:
    """A certificate for a reader."""
    content = certificate.content
    landed, batches, unknown = content["landed"], content["batches"], content["unknown_users"]
    yield (
        f"Certificate {certificate.number:,} of hour {hour_key(certificate.hour)} UTC,"
        f" issued {certificate.issued_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_row(
        "generation", f"{certificate.generation}, with all batches up to {content['up_to_batch']:,}"
    )
    facts.add_row("landed", f"{landed['rows']:,} rows, {landed['bytes']:,} bytes, {landed['files']:,} files")
    facts.add_row("late", f"{landed['late_rows']:,} rows came after the hour had closed")
    facts.add_row("batches", f"{batches['batches']:,}, with {batches['rows']:,} rows of this and other hours")
    rejected = ", ".join(f"{rows:,} {reason}" for reason, rows in sorted(content["rejected"].items()))
    facts.add_row("rejected there", rejected or "none")
    facts.add_row(
        "unknown users",
        f"{unknown['users']:,}, with {unknown['rows']:,} rows and {unknown['bytes']:,} bytes",
    )
    facts.add_row("users' version", f"{certificate.users_version:,}")
    facts.add_row("SHA-256", certificate.sha256)
    facts.add_row("of the one before", certificate.previous_sha256 or "none: it is the first")
    yield facts
    yield _offsets(content["offsets"])
    yield _published(content["published"])


def _offsets(ranges: Sequence[Mapping]) -> Table:
    columns = [Column(name, justify="right") for name in ("partition", "from offset", "until offset")]
    table = Table("topic", *columns, title="Kafka offsets of its batches", title_justify="left")
    for of in ranges[:SHOWN]:
        table.add_row(safe_cell(of["topic"]), str(of["partition"]), f"{of['from']:,}", f"{of['until']:,}")
    if rest := and_more(len(ranges), SHOWN):
        table.caption = f"{rest}; --json has them all"
    return table


def _published(published: Mapping[str, Mapping]) -> Table:
    columns = [Column(name, justify="right") for name in ("rows", "bytes", "Delta version")]
    table = Table("published", *columns)
    for asset in ASSETS:
        of = published[asset]
        version = f"{of['delta_version']:,}" if "delta_version" in of else ""
        table.add_row(asset, f"{of['rows']:,}", f"{of['bytes']:,}", version)
    return table


def differences_table(differences: Sequence[Difference]) -> Table:
    """The first differences, with how many more there are."""
    title = f"{len(differences):,} difference{'' if len(differences) == 1 else 's'}"
    table = Table(title=title, title_justify="left")
    for name in ("hour", "what", "expected", "found"):
        table.add_column(name, overflow="fold", no_wrap=name == "hour")
    for difference in differences[:SHOWN]:
        table.add_row(*(safe_cell(text) for text in vars(difference).values()))
    table.caption = and_more(len(differences), SHOWN) or None
    return table


def pending_table(pending: Mapping[str, str]) -> Table:
    """The hours that are not finished."""
    table = Table("hour", "not finished", title_justify="left")
    for hour, reason in list(pending.items())[:SHOWN]:
        table.add_row(hour, safe_cell(reason))
    table.caption = and_more(len(pending), SHOWN) or None
    return table
