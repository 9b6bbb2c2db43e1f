"""Claims on an hour of the serving tables, from PostgreSQL alone.

Each takes several queries: call them in one snapshot, or a run that publishes in between looks like a defect.
"""

from datetime import datetime

import psycopg
from psycopg import sql

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.schema import ServingTable
from antenna_assets.errors import AntennaError
from antenna_assets.publishing.users import users_version
from antenna_assets.verify.claims.conservation import bytes_are_conserved
from antenna_assets.verify.claims.verdict import Verdict, none_of

LEAST_KNOWN_SHARE = 0.95
"""Share of an hour's bytes. Below it, `user_metadata` is probably out of date, and quotas mean little."""


class NotInTable(AntennaError):
    """The table was never published for the hour: there is nothing to check."""


def table_claims(
    connection: psycopg.Connection, table: ServingTable, hour: datetime, *, conserves_bytes: bool
) -> dict[str, Verdict]:
    """Return `keys_are_unique` and `no_negative_bytes`, and with `conserves_bytes` also
    `bytes_are_conserved`.

    Raises:
        NotInTable: the hour was never published there.
    """
    facts = sql.SQL(
        "SELECT count(*), coalesce(sum({sum}), 0), count(*) FILTER (WHERE {sum} < 0), count(DISTINCT {key})"
        " FROM {table} WHERE date >= %s AND date < %s"
    ).format(
        sum=sql.Identifier(table.sum_column), key=sql.Identifier(table.key), table=sql.Identifier(table.name)
    )
    rows, bytes_, negative, keys = connection.execute(facts, [hour, hour + HOUR]).fetchall()[0]
    claims = {
        "keys_are_unique": none_of(rows - keys, f"rows with the {table.key} of another"),
        "no_negative_bytes": none_of(negative, "rows with negative bytes"),
    }
    if conserves_bytes:
        generation, _ = published(connection, table.name, hour)
        claims["bytes_are_conserved"] = bytes_are_conserved(
            connection, hour, generation, rows=None, bytes_=int(bytes_)
        )
    return claims


def over_quota_is_exact(connection: psycopg.Connection, hour: datetime) -> Verdict:
    """The users over quota are those whose bytes are above their quota, no more and no fewer.

    Both tables must be of one generation and users' version to be compared. While a run publishes another
    generation they are not; that run checks them itself, so this passes. At one generation but different
    users this fails with a warning only: the hour is not wholly published, and the sensor requests it until
    it is, with this check again.

    The quotas are those that the hour was published with. Once the users have changed, who is missing can no
    longer be told: then each row is compared with its own quota and the user's bytes.
    """
    generation, version = published(connection, "users_over_quota_1h", hour)
    used = published(connection, "bytes_agg_user_1h", hour)
    if used != (generation, version):
        message = (
            f"not compared: the table is at generation {generation} and users' version {version},"
            f" bytes_agg_user_1h at {used[0]} and {used[1]}; another run publishes the hour or was killed:"
            " the sensor requests it until both are of one version"
        )
        return Verdict(used[0] != generation, message, {"compared": 0}, only_warns=True)
    now = users_version(connection)
    same = version == now
    found = "SELECT id, email, quota, sum_user_bytes FROM users_over_quota_1h WHERE date = %(hour)s"
    if same:
        expected = (
            "SELECT used.id, users.email, users.quota, used.sum_user_bytes FROM bytes_agg_user_1h AS used"
            " JOIN user_metadata AS users USING (id)"
            " WHERE used.date = %(hour)s AND used.sum_user_bytes > users.quota"
        )
    else:
        expected = (
            "SELECT over.id, used.email, over.quota, used.sum_user_bytes FROM users_over_quota_1h AS over"
            " JOIN bytes_agg_user_1h AS used USING (date, id)"
            " WHERE over.date = %(hour)s AND used.sum_user_bytes > over.quota"
        )
    missing, wrong, rows = connection.execute(
        sql.SQL(
            "SELECT (SELECT count(*) FROM ({expected} EXCEPT {found}) AS missing),"
            " (SELECT count(*) FROM ({found} EXCEPT {expected}) AS wrong),"
            " (SELECT count(*) FROM ({found}) AS found)"
        ).format(expected=sql.SQL(expected), found=sql.SQL(found)),
        {"hour": hour},
    ).fetchall()[0]
    message = f"{counted(rows, 'user')} over quota, {missing:,} missing, {wrong:,} that should not be there"
    if not same:
        message += (
            f"; the users have changed since (version {version} to {now}): missing ones are not looked for"
        )
    metrics = {"compared": 1, "users_over_quota": rows, "missing": missing, "wrong": wrong}
    return Verdict(missing == 0 and wrong == 0, message, metrics)


def known_users_share(connection: psycopg.Connection, hour: datetime) -> Verdict:
    """At least `LEAST_KNOWN_SHARE` of the hour's bytes are of users that `user_metadata` had."""
    known, all_ = connection.execute(
        "SELECT coalesce(sum(sum_user_bytes) FILTER (WHERE email IS NOT NULL), 0),"
        " coalesce(sum(sum_user_bytes), 0) FROM bytes_agg_user_1h WHERE date = %s",
        [hour],
    ).fetchall()[0]
    share = float(known / all_) if all_ else 1.0
    message = f"{share:.1%} of the bytes are of known users, at least {LEAST_KNOWN_SHARE:.0%} are expected"
    return Verdict(
        share >= LEAST_KNOWN_SHARE,
        message,
        {"known_users_share": share, "unknown_users_bytes": int(all_ - known)},
    )


def published(connection: psycopg.Connection, asset: str, hour: datetime) -> tuple[int, int | None]:
    """Return the generation of an hour in a table, and the users' version that it was published with.

    Raises:
        NotInTable: it was never published.
    """
    row = connection.execute(
        "SELECT head.generation, publication.users_version FROM ledger.publication_head AS head"
        " JOIN ledger.publication USING (asset, hour, generation) WHERE asset = %s AND hour = %s"
        " ORDER BY publication.number DESC LIMIT 1",
        [asset, hour],
    ).fetchone()
    if row is None:
        raise NotInTable(f"{asset} does not hold {hour_key(hour)} yet; materialize {asset} for it first")
    return row
