"""The ledger's rows of an hour against its certificate: batches, offsets, rejections, generation and publications.

No file and no row that people read is looked at here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from antenna_assets.domain.hours import hour_key
from antenna_assets.ledger.certificate import (
    Certificate,
    complete,
    content_of,
    publications,
    without_numbers,
)
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.generations import read_generation
from antenna_assets.ledger.landing import LandingFacts, LandingUnknown, landing_facts, landing_of
from antenna_assets.verify.difference import ABSENT, Difference, compared


@dataclass
class LedgerFindings:
    """What the ledger says of a certified hour.

    Attributes:
        landing_is_kept: False once the hour is past its retention and the ledger names no file of it any more.
        republished: assets that are ahead of the certificate, so that their rows are not those it is about.
        pending: why the hour is not finished; None if it is.
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
        kept_since: hours before it may have lost their landed files to the retention.
    """
    content, hour = certificate.content, certificate.hour
    key = hour_key(hour)
    found = LedgerFindings()
    landed = landing_facts(connection, hour, content["up_to_batch"])
    certified = {name: content[name] for name in landed}
    found.landing_is_kept = hour >= kept_since or landed["landed"]["files"] > 0
    if found.landing_is_kept:
        # How many rows were late depends on when the hour closed, and `antenna reopen` lets it close again: of that the fact
        # that was kept at the seal tells, below.
        late = {"late_rows": certified["landed"]["late_rows"]}
        landed = {**landed, "landed": {**landed["landed"], **late}}
        found.differences += compared(key, "ledger", certified, landed)
        found.differences += _sums(connection, hour, content["up_to_batch"])
    found.differences += _landing(connection, certificate, certified)
    changed = [*_generation(connection, certificate), *_publications(connection, certificate)]
    found.differences += changed
    _heads(connection, certificate, found)
    if found.pending is None and not changed:
        current = publications(connection, hour, certificate.generation)
        if complete(current):
            claimed, now = content, content_of(connection, hour, certificate.generation, current)
            found.differences += compared(
                key,
                "newest publications",
                *(
                    {name: without_numbers(of)[name] for name in ("published", "unknown_users")}
                    for of in (claimed, now)
                ),
            )
        elif current.keys() == content["published"].keys():
            found.pending = "its assets are of different versions of the users: run the hour again"
            found.republished |= {
                asset
                for asset, row in current.items()
                if row["number"] != content["published"][asset]["publication"]
            }
    if found.pending is None:
        found.pending = _dirty(connection, certificate) or _unsettled(connection, certificate)
    return found


def _landing(
    connection: psycopg.Connection, certificate: Certificate, certified: LandingFacts
) -> Iterator[Difference]:
    """What landed for the generation when it was sealed, against what is certified: also when no file of it is left.

    A certificate that was issued past the horizon by an earlier version says that nothing landed. It stays in the chain, and
    is named here until the hour's next one, which the sensor asks for, takes its place.
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
        return  # `_generation` names it.
    else:
        yield from compared(key, "ledger, as sealed", certified, landed)


def lake_table(connection: psycopg.Connection, certificate: Certificate, asset: str) -> str | None:
    """Delta's id of the lake table in which the certified hour was published; None if nobody wrote it down."""
    row = connection.execute(
        "SELECT lake_table FROM ledger.publication WHERE number = %s",
        [certificate.content["published"][asset]["publication"]],
    ).fetchone()
    return row[0] if row else None


def _sums(connection: psycopg.Connection, hour: datetime, up_to_batch: int) -> Iterator[Difference]:
    """The sums that the ledger keeps, against what they are sums of."""
    key = hour_key(hour)
    with connection.cursor(row_factory=dict_row) as cursor:
        kept = cursor.execute("SELECT rows, bytes FROM ledger.hour WHERE hour = %s", [hour]).fetchone()
        files = cursor.execute(
            "SELECT coalesce(sum(rows), 0)::bigint AS rows, coalesce(sum(bytes), 0)::bigint AS bytes"
            " FROM ledger.file WHERE kind = 'landed' AND hour = %s",
            [hour],
        ).fetchone()
        yield from compared(key, "ledger, sums of the hour's files", files, kept or ABSENT)
        batches = cursor.execute(
            "SELECT batch, quarantined, rows, bytes,"
            " (SELECT coalesce(sum(r.rows), 0)::bigint FROM ledger.rejection AS r WHERE r.batch = b.batch) AS rejections,"
            " (SELECT coalesce(sum(f.rows), 0)::bigint FROM ledger.file AS f"
            "  WHERE f.batch = b.batch AND f.kind = 'landed') AS file_rows,"
            " (SELECT coalesce(sum(f.bytes), 0)::bigint FROM ledger.file AS f"
            "  WHERE f.batch = b.batch AND f.kind = 'landed') AS file_bytes"
            " FROM ledger.batch AS b WHERE batch IN"
            " (SELECT batch FROM ledger.file WHERE kind = 'landed' AND hour = %s AND batch <= %s) ORDER BY batch",
            [hour, up_to_batch],
        ).fetchall()
    for row in batches:
        what = f"ledger, batch {row['batch']}"
        yield from compared(key, f"{what}, quarantined", row["rejections"], row["quarantined"])
        # Files of its older hours may be past their retention.
        if row["file_rows"] > row["rows"] or row["file_bytes"] > row["bytes"]:
            expected = {"rows": row["file_rows"], "bytes": row["file_bytes"]}
            yield from compared(key, what, expected, {name: row[name] for name in expected})


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
    yield from compared(hour_key(certificate.hour), what, expected, found)


def _publications(connection: psycopg.Connection, certificate: Certificate) -> Iterator[Difference]:
    """The very rows that were certified: they are never changed or removed."""
    certified = certificate.content["published"]
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT number, asset, hour, generation, rows, bytes, users_version, lake_version"
            " FROM ledger.publication WHERE number = ANY(%s)",
            [[of["publication"] for of in certified.values()]],
        ).fetchall()
    found = {row.pop("number"): row for row in rows}
    for asset, of in certified.items():
        expected = {
            "asset": asset,
            "hour": certificate.hour,
            "generation": certificate.generation,
            **_rows_and_bytes(of),
            "users_version": None if asset == "raw_parquet" else certificate.content["users_version"],
            "lake_version": of.get("delta_version"),
        }
        yield from compared(
            hour_key(certificate.hour),
            f"publication {of['publication']} of {asset}",
            expected,
            found.get(of["publication"], ABSENT),
        )


def _heads(connection: psycopg.Connection, certificate: Certificate, found: LedgerFindings) -> None:
    key = hour_key(certificate.hour)
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
            found.republished.add(asset)
            found.pending = f"generation {generation} is not wholly published"
        elif generation != certificate.generation or not recorded:
            expected = f"generation {certificate.generation} as a publication has it"
            what = f"publication_head of {asset}"
            found.differences.append(
                Difference(key, what, expected, f"generation {generation}" if generation else ABSENT)
            )


def _dirty(connection: psycopg.Connection, certificate: Certificate) -> str | None:
    row = connection.execute(
        "SELECT hour.generation, hour.rows, hour_generation.rows FROM ledger.hour"
        " LEFT JOIN ledger.hour_generation USING (hour, generation) WHERE hour = %s",
        [certificate.hour],
    ).fetchone()
    if row is None:
        return "the ledger does not know it any more"
    if row[0] != certificate.generation:
        return f"generation {row[0]} is sealed and not published"
    if row[1] != row[2]:
        return f"dirty: generation {row[0]} is without {row[1] - (row[2] or 0):,} late rows"
    return None


def _unsettled(connection: psycopg.Connection, certificate: Certificate) -> str | None:
    """What the sensor asks for the hour for, although its certificate is of the newest generation."""
    rows = connection.execute(
        "SELECT asset FROM ledger.unsettled_publication WHERE hour = %s ORDER BY asset",
        [certificate.hour],
    ).fetchall()
    assets = ", ".join(asset for (asset,) in rows)
    return (
        f"{assets} was begun again, or with newer users, and not finished: run the hour again"
        if rows
        else None
    )


def _rows_and_bytes(of: dict[str, Any]) -> dict[str, int]:
    return {name: of[name] for name in ("rows", "bytes")}
