"""Certificates: issued and chained when the six assets of an hour are published at one generation.

They are composed from the ledger; `verify/` recomputes what they claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from antenna_assets.clients.advisory_locks import CERTIFICATE_OF_HOUR
from antenna_assets.domain.hours import EPOCH, HOUR, hour_key
from antenna_assets.domain.schema import ASSETS
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.chain import ChainedCertificate, Content, issue, newest
from antenna_assets.ledger.generations import read_generation
from antenna_assets.ledger.landing import landing_of, record_landing
from antenna_assets.ledger.publications import Publication, record_publication, require_nobody_forgotten

UNKNOWN_USERS = "unknown_users"
"""What a publication of users records besides its digest: `users` without an e-mail, and their `bytes`."""


class NoCertificate(AntennaError):
    """There is no certificate yet; the message says why."""


@dataclass(frozen=True)
class Certificate(ChainedCertificate):
    """The certificate of an hour."""

    NAME = "certificate"
    TABLE = "certificate"

    hour: datetime

    @property
    def subject(self) -> dict[str, str]:
        """The hour."""
        return {"hour": hour_key(self.hour)}


def record_and_certify(
    connection: psycopg.Connection, publications: Sequence[Publication]
) -> dict[datetime, Superseded]:
    """Record an asset's publications of some hours, whose content is committed already, in one transaction.

    The last of an hour's six publications certifies it.

    Returns:
        The hours that were left out, as a newer version of them is published.

    Raises:
        ForgottenMeanwhile: a user was forgotten since the connection was opened.
    """
    superseded: dict[datetime, Superseded] = {}
    with connection.transaction():
        for publication in sorted(publications, key=lambda one: one.hour):
            try:
                record_publication(connection, publication)
            except Superseded as newer:
                superseded[publication.hour] = newer
        require_nobody_forgotten(connection)
        recorded = {one.hour: one.generation for one in publications if one.hour not in superseded}
        certify(connection, recorded)
    return superseded


def certify(
    connection: psycopg.Connection, generations: Mapping[datetime, int]
) -> dict[datetime, Certificate]:
    """Issue the certificate of each hour whose six assets are at this generation; ends its publication.

    The caller has locked its own asset's heads. The advisory locks of all hours are taken before the others'
    heads are read, so of two publications that finish at once the second one sees the first; and before the
    head of the chain is locked, or two ranges that overlap would wait for each other. The stream writes none
    of these rows.

    Nothing is issued while an asset is missing or the tables have different users' versions, and if the
    hour's newest certificate has the same content.
    """
    hours = sorted(generations)
    for hour in hours:
        connection.execute(
            "SELECT pg_advisory_xact_lock(%s::int, %s::int)", [CERTIFICATE_OF_HOUR, (hour - EPOCH) // HOUR]
        )
    issued = {hour: _issue(connection, hour, generations[hour]) for hour in hours}
    return {hour: certificate for hour, certificate in issued.items() if certificate is not None}


def _issue(connection: psycopg.Connection, hour: datetime, generation: int) -> Certificate | None:
    published = publications(connection, hour, generation)
    if not complete(published):
        return None
    record_landing(connection, read_generation(connection, hour, generation))
    content = content_of(connection, hour, generation, published)
    _mark_certified(connection, hour)
    before = newest_certificate(connection, hour)
    if before is not None and without_publication_numbers(before.content) == without_publication_numbers(
        content
    ):
        return None
    issued = issue(connection, Certificate, content, hour=hour)
    commit_point("publish.certified")
    return issued


def _mark_certified(connection: psycopg.Connection, hour: datetime) -> None:
    """Mark the hour's publication heads as certified.

    One that another publication has locked is skipped, as waiting for it with the hour's lock would be a
    deadlock: that publication certifies the hour itself. If it dies, the hour is published again.
    """
    connection.execute(
        "UPDATE ledger.publication_head SET uncertified = false WHERE hour = %(hour)s AND asset IN ("
        " SELECT asset FROM ledger.publication_head WHERE hour = %(hour)s AND uncertified"
        " ORDER BY asset FOR UPDATE SKIP LOCKED)",
        {"hour": hour},
    )


def publications(connection: psycopg.Connection, hour: datetime, generation: int) -> dict[str, dict]:
    """The current publication of each asset whose head is at this generation, by asset.

    It has the users' version of the head. For a serving table it is the last one recorded. For a lake table,
    where two runs may commit in one order and be recorded in the other, it is the latest attempt, as the
    lake's fence rejects earlier ones. Publications from before attempts were numbered are ordered by Delta
    version.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT DISTINCT ON (asset) asset, number, rows, bytes, p.users_version, lake_version, content"
            " FROM ledger.publication AS p"
            " JOIN ledger.publication_head AS head USING (asset, hour, generation)"
            " WHERE hour = %s AND generation = %s AND p.users_version IS NOT DISTINCT FROM head.users_version"
            " ORDER BY asset, attempt DESC NULLS LAST, lake_version DESC NULLS LAST, number DESC",
            [hour, generation],
        ).fetchall()
    return {row.pop("asset"): row for row in rows}


def complete(published: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all six assets are published with their digests, by the same version of the users."""
    return (
        published.keys() == set(ASSETS)
        and all(row["content"] is not None for row in published.values())
        and len({row["users_version"] for asset, row in published.items() if asset != "raw_parquet"}) == 1
    )


def content_of(
    connection: psycopg.Connection, hour: datetime, generation: int, published: Mapping[str, Mapping]
) -> Content:
    """The content of an hour's certificate.

    `hour`, `generation`, `up_to_batch` and `users_version` identify the snapshot. `landed`, `batches`,
    `rejected` and `offsets` are its landing facts (`landing_of`). `unknown_users` counts users without a row
    in `user_metadata`, their rows and bytes. `published` has for each asset the number of its publication,
    rows and bytes; of a lake table also the Delta version and the SHA-256 of each file, of others the SHA-256
    of the rows (`publishing/digests.py`).
    """
    sealed = read_generation(connection, hour, generation)
    recorded = published["bytes_agg_user_1h"]["content"].get(UNKNOWN_USERS)
    unknown = recorded or _unknown_users(connection, hour)
    assets = {}
    for asset, row in published.items():
        held = {
            name: value
            for name, value in row["content"].items()
            if name not in ("unknown_rows", UNKNOWN_USERS)
        }
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
            "users": unknown["users"],
            "bytes": unknown["bytes"],
            "rows": published["enriched_usage"]["content"]["unknown_rows"],
        },
        "published": assets,
    }


def _unknown_users(connection: psycopg.Connection, hour: datetime) -> dict[str, int]:
    """The users without an e-mail, for a publication that has not recorded them."""
    users, bytes_ = connection.execute(
        "SELECT count(*), coalesce(sum(sum_user_bytes), 0)::bigint FROM bytes_agg_user_1h"
        " WHERE date = %s AND email IS NULL",
        [hour],
    ).fetchall()[0]
    return {"users": users, "bytes": bytes_}


def without_publication_numbers(content: Content) -> Content:
    """The content without the numbers of its publications: equal for a re-publication of the same rows."""
    assets = {
        asset: {name: value for name, value in of.items() if name != "publication"}
        for asset, of in content["published"].items()
    }
    return {**content, "published": assets}


def newest_certificate(connection: psycopg.Connection, hour: datetime) -> Certificate | None:
    """The hour's newest certificate; None if it has none."""
    return newest(connection, Certificate, hour=hour)


def newest_of_chain(connection: psycopg.Connection) -> Certificate:
    """The newest certificate of the chain, whose hash covers all before it.

    Raises:
        NoCertificate: no hour has one yet.
    """
    found = newest(connection, Certificate)
    if found is None:
        raise NoCertificate("no hour has a certificate yet; `antenna status` shows the state of each")
    return found


def require_certificate(connection: psycopg.Connection, hour: datetime) -> Certificate:
    """The hour's newest certificate.

    Raises:
        NoCertificate: the hour has none.
    """
    found = newest_certificate(connection, hour)
    if found is None:
        raise NoCertificate(
            f"hour {hour_key(hour)} has no certificate: one is issued when all six assets of a closed hour "
            "are published at one generation; `antenna status` shows its state"
        )
    return found
