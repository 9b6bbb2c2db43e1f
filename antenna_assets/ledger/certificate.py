"""Certificates: issued and chained when the six assets of an hour are published at one generation.

They are composed from the ledger; `verify/` recomputes what they claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from antenna_assets.clients.advisory_locks import CERTIFICATE_OF_HOUR
from antenna_assets.clients.rows import columns_of, rows_of
from antenna_assets.domain.hours import EPOCH, HOUR, hour_key
from antenna_assets.domain.schema import ASSETS
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.chain import ChainedCertificate, Content, issue, newest
from antenna_assets.ledger.generations import Generation, read_generations
from antenna_assets.ledger.landing import LandingFacts, record_landing
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
    connection.execute(
        # In the order of the hours.
        "SELECT pg_advisory_xact_lock(%s::int, hour) FROM unnest(%s::int[]) AS hour",
        [CERTIFICATE_OF_HOUR, [(hour - EPOCH) // HOUR for hour in sorted(generations)]],
    )
    published = publications(connection, generations)
    whole = {hour: generations[hour] for hour in sorted(generations) if complete(published[hour])}
    if not whole:
        return {}
    sealed, before = read_generations(connection, whole), newest_certificates(connection, [*whole])
    _mark_certified(connection, [*whole])
    issued: dict[datetime, Certificate] = {}
    for hour in whole:
        landing = record_landing(connection, sealed[hour])
        content = content_of(connection, sealed[hour], landing, published[hour])
        if hour not in before or without_publication_numbers(
            before[hour].content
        ) != without_publication_numbers(content):
            issued[hour] = issue(connection, Certificate, content, hour=hour)
            commit_point("publish.certified")
    return issued


def _mark_certified(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Mark the publication heads of hours as certified.

    One that another publication has locked is skipped, as waiting for it with the hour's lock would be a
    deadlock: that publication certifies the hour itself. If it dies, the hour is published again.
    """
    connection.execute(
        "UPDATE ledger.publication_head AS head SET uncertified = false FROM ("
        " SELECT hour, asset FROM ledger.publication_head WHERE hour = ANY(%s) AND uncertified"
        " ORDER BY hour, asset FOR UPDATE SKIP LOCKED) AS own"
        " WHERE head.hour = own.hour AND head.asset = own.asset",
        [list(hours)],
    )


def publications(
    connection: psycopg.Connection, generations: Mapping[datetime, int]
) -> dict[datetime, dict[str, dict]]:
    """The current publication of each asset whose head is at the generation of its hour, by hour and asset.

    It has the users' version of the head. For a serving table it is the last one recorded. For a lake table,
    where two runs may commit in one order and be recorded in the other, it is the latest attempt, as the
    lake's fence rejects earlier ones. Publications from before attempts were numbered are ordered by Delta
    version.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT DISTINCT ON (hour, asset)"
            "  hour, asset, number, rows, bytes, p.users_version, lake_version, content"
            " FROM unnest(%s::timestamptz[], %s::integer[]) AS wanted (hour, generation)"
            " JOIN ledger.publication AS p USING (hour, generation)"
            " JOIN ledger.publication_head AS head USING (asset, hour, generation)"
            " WHERE p.users_version IS NOT DISTINCT FROM head.users_version"
            " ORDER BY hour, asset, attempt DESC NULLS LAST, lake_version DESC NULLS LAST, number DESC",
            [[*generations], [*generations.values()]],
        ).fetchall()
    found: dict[datetime, dict[str, dict]] = {hour: {} for hour in generations}
    for row in rows:
        found[row.pop("hour")][row.pop("asset")] = row
    return found


def complete(published: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all six assets are published with their digests, by the same version of the users."""
    return (
        published.keys() == set(ASSETS)
        and all(row["content"] is not None for row in published.values())
        and len({row["users_version"] for asset, row in published.items() if asset != "raw_parquet"}) == 1
    )


def content_of(
    connection: psycopg.Connection,
    sealed: Generation,
    landing: LandingFacts,
    published: Mapping[str, Mapping[str, Any]],
) -> Content:
    """The content of an hour's certificate.

    `hour`, `generation`, `up_to_batch` and `users_version` identify the snapshot. `landed`, `batches`,
    `rejected` and `offsets` are its landing facts; for the rest see `published_content`.
    """
    return {
        "hour": hour_key(sealed.hour),
        "generation": sealed.generation,
        "up_to_batch": sealed.up_to_batch,
        "users_version": published["enriched_usage"]["users_version"],
        **landing,
        **published_content(connection, sealed.hour, published),
    }


def published_content(
    connection: psycopg.Connection, hour: datetime, published: Mapping[str, Mapping[str, Any]]
) -> Content:
    """What an hour's certificate says of its publications.

    `unknown_users` counts users without a row in `user_metadata`, their rows and bytes. `published` has for
    each asset the number of its publication, rows and bytes; of a lake table also the Delta version and the
    SHA-256 of each file, of others the SHA-256 of the rows (`publishing/digests.py`).
    """
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


def newest_certificates(
    connection: psycopg.Connection, hours: Sequence[datetime]
) -> dict[datetime, Certificate]:
    """The newest certificate of each hour that has one."""
    query = sql.SQL(
        "SELECT newest.* FROM unnest(%s::timestamptz[]) AS wanted (hour) CROSS JOIN LATERAL ("
        " SELECT {} FROM ledger.certificate AS own WHERE own.hour = wanted.hour"
        " ORDER BY number DESC LIMIT 1) AS newest"
    ).format(columns_of(Certificate))
    return {one.hour: one for one in rows_of(connection, Certificate, query, [list(hours)])}


def newest_certificate(connection: psycopg.Connection, hour: datetime) -> Certificate | None:
    """The hour's newest certificate; None if it has none."""
    return newest_certificates(connection, [hour]).get(hour)


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
