"""The certificate of an hour: issued by the publication that brings its six assets to one generation, and read back.

What a certificate claims is recomputed in `verify.py`; here it is only put together from the ledger and chained.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row

from antenna_assets.clients.clock import database_now
from antenna_assets.domain.hours import EPOCH, HOUR, hour_key
from antenna_assets.domain.schema import ASSETS
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.generations import read_generation
from antenna_assets.ledger.landing import landing_of, record_landing
from antenna_assets.ledger.publications import Publication, record_publication, require_nobody_forgotten

# First key of the advisory locks on hours; the second is the hour's number since 1970.
_HOUR_LOCK = 0x63657274

Content = dict[str, Any]


class NoCertificate(AntennaError):
    """The hour has none yet; the message says why."""


@dataclass(frozen=True)
class Certificate:
    """A row of `ledger.certificate`. `text` is the canonical JSON that the hash is of."""

    number: int
    hour: datetime
    generation: int
    users_version: int
    issued_at: datetime
    text: str
    previous_sha256: str
    sha256: str

    @property
    def content(self) -> Content:
        """What is certified."""
        return json.loads(self.text)["content"]


def canonical(value: Mapping[str, Any]) -> str:
    """The one text of a JSON object: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_of(text: str) -> str:
    """The hash of a certificate's text, which holds the hash of the certificate before it."""
    return hashlib.sha256(text.encode()).hexdigest()


def record_and_certify(connection: psycopg.Connection, publication: Publication) -> None:
    """Record a publication whose content is committed already, in a transaction of its own; the last of six certifies.

    Raises:
        Superseded: a newer generation of the hour is published.
        ForgottenMeanwhile: a user was forgotten since the connection was opened.
    """
    with connection.transaction():
        record_publication(connection, publication)
        require_nobody_forgotten(connection)
        certify(connection, publication.hour, publication.generation)


def certify(connection: psycopg.Connection, hour: datetime, generation: int) -> Certificate | None:
    """Issue the hour's certificate if all six assets are at this generation; the last statement of a publication.

    The publisher holds its own asset's head. Then it takes the hour's advisory lock, and only with it looks at the
    others: of two that finish at once the second one sees the first. None of these rows is one that the stream writes.
    None is returned, and nothing is issued, while an asset is missing, while tables are of different users' versions,
    and if nothing differs from the hour's newest certificate, which then names what is published as well.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s::int, %s::int)", [_HOUR_LOCK, (hour - EPOCH) // HOUR])
    published = publications(connection, hour, generation)
    if not complete(published):
        return None
    record_landing(connection, read_generation(connection, hour, generation))
    content = content_of(connection, hour, generation, published)
    _mark_certified(connection, hour)
    before = newest_certificate(connection, hour)
    if before is not None and without_numbers(before.content) == without_numbers(content):
        return None
    head = connection.execute("SELECT number, sha256 FROM ledger.certificate_head FOR UPDATE").fetchone()
    if head is None:
        raise psycopg.DataError("ledger.certificate_head is empty: expected its one row")
    number, previous = head[0] + 1, head[1]
    issued_at = database_now(connection)
    text = canonical(
        {
            "content": content,
            "issued_at": issued_at.isoformat(),
            "number": number,
            "previous_sha256": previous,
        }
    )
    users_version = content["users_version"]
    issued = Certificate(number, hour, generation, users_version, issued_at, text, previous, sha256_of(text))
    connection.execute(
        "INSERT INTO ledger.certificate"
        " (number, hour, generation, users_version, issued_at, text, previous_sha256, sha256)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [*vars(issued).values()],
    )
    connection.execute("UPDATE ledger.certificate_head SET number = %s, sha256 = %s", [number, issued.sha256])
    commit_point("publish.certified")
    return issued


def _mark_certified(connection: psycopg.Connection, hour: datetime) -> None:
    """The hour's publications are all named by its newest certificate, as far as anybody else sees them.

    A head that another publication holds is left to that one's own certificate: to wait for it here, with the hour's lock,
    would be a deadlock. If it dies instead, the hour is asked for once more.
    """
    connection.execute(
        "UPDATE ledger.publication_head SET uncertified = false WHERE hour = %(hour)s AND asset IN ("
        " SELECT asset FROM ledger.publication_head WHERE hour = %(hour)s AND uncertified"
        " ORDER BY asset FOR UPDATE SKIP LOCKED)",
        {"hour": hour},
    )


def publications(connection: psycopg.Connection, hour: datetime, generation: int) -> dict[str, dict]:
    """The publication in force of each asset whose head is at this generation, by asset.

    It is of the users' version that the head has. A table holds what was published last. Of a lake table, which two runs
    may commit to in one order and record in the other, it is the attempt that began last: the lake lets no earlier one
    follow it. Publications from before attempts were counted go by their Delta version.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT DISTINCT ON (asset) asset, number, rows, bytes, p.users_version, lake_version, content"
            " FROM ledger.publication AS p JOIN ledger.publication_head AS head USING (asset, hour, generation)"
            " WHERE hour = %s AND generation = %s AND p.users_version IS NOT DISTINCT FROM head.users_version"
            " ORDER BY asset, attempt DESC NULLS LAST, lake_version DESC NULLS LAST, number DESC",
            [hour, generation],
        ).fetchall()
    return {row.pop("asset"): row for row in rows}


def complete(published: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the publications are of all six assets, say what they hold, and looked up the same users."""
    return (
        published.keys() == set(ASSETS)
        and all(row["content"] is not None for row in published.values())
        and len({row["users_version"] for asset, row in published.items() if asset != "raw_parquet"}) == 1
    )


def content_of(
    connection: psycopg.Connection, hour: datetime, generation: int, published: Mapping[str, Mapping]
) -> Content:
    """What is certified of an hour.

    `hour`, `generation`, `up_to_batch` and `users_version` say which snapshot it is. `landed`, `batches`, `rejected`
    and `offsets` are of its landing, as `landing_of` has them: facts of the generation, however old it is. `unknown_users` have no row in `user_metadata`:
    users, their rows and bytes. `published` has for each asset the number of its publication, rows and bytes; for a
    lake table its Delta version and files with the SHA-256 of each, for others the SHA-256 of the rows (`publishing/digests.py`).
    """
    sealed = read_generation(connection, hour, generation)
    unknown = connection.execute(
        "SELECT count(*), coalesce(sum(sum_user_bytes), 0)::bigint FROM bytes_agg_user_1h"
        " WHERE date = %s AND email IS NULL",
        [hour],
    ).fetchall()[0]
    assets = {}
    for asset, row in published.items():
        held = {name: value for name, value in row["content"].items() if name != "unknown_rows"}
        assets[asset] = {"publication": row["number"], "rows": row["rows"], "bytes": row["bytes"], **held}
        if row["lake_version"] is not None:
            assets[asset]["delta_version"] = row["lake_version"]
    return {
        "hour": hour_key(hour),
        "generation": generation,
        "up_to_batch": sealed.up_to_batch,
        "users_version": published["enriched_usage"]["users_version"],
        **landing_of(connection, sealed),
        "unknown_users": {
            "users": unknown[0],
            "bytes": unknown[1],
            "rows": published["enriched_usage"]["content"]["unknown_rows"],
        },
        "published": assets,
    }


def without_numbers(content: Content) -> Content:
    """The content without the numbers of its publications: what a re-publication of the same rows leaves equal."""
    assets = {
        asset: {name: value for name, value in of.items() if name != "publication"}
        for asset, of in content["published"].items()
    }
    return {**content, "published": assets}


def newest_certificate(connection: psycopg.Connection, hour: datetime) -> Certificate | None:
    """The hour's newest certificate; None if it has none."""
    with connection.cursor(row_factory=class_row(Certificate)) as cursor:
        return cursor.execute(
            "SELECT number, hour, generation, users_version, issued_at, text, previous_sha256, sha256"
            " FROM ledger.certificate WHERE hour = %s ORDER BY number DESC LIMIT 1",
            [hour],
        ).fetchone()


def newest_of_all(connection: psycopg.Connection) -> Certificate:
    """The newest certificate of the chain, which stands for all before it.

    Raises:
        NoCertificate: there is none yet.
    """
    with connection.cursor(row_factory=class_row(Certificate)) as cursor:
        found = cursor.execute(
            "SELECT number, hour, generation, users_version, issued_at, text, previous_sha256, sha256"
            " FROM ledger.certificate ORDER BY number DESC LIMIT 1"
        ).fetchone()
    if found is None:
        raise NoCertificate("no hour has a certificate yet; `antenna status` shows how far they are")
    return found


def require_certificate(connection: psycopg.Connection, hour: datetime) -> Certificate:
    """The hour's newest certificate.

    Raises:
        NoCertificate: the hour has none.
    """
    found = newest_certificate(connection, hour)
    if found is None:
        raise NoCertificate(
            f"hour {hour_key(hour)} has no certificate: one is issued when all six assets of a closed hour are"
            " published at one generation; `antenna status` shows how far it is"
        )
    return found
