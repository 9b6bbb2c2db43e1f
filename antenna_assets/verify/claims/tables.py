"""Claims on hours of the serving tables, from PostgreSQL alone.

Each takes several queries: call them in one snapshot, or a run that publishes in between looks like a defect.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import psycopg
from psycopg import sql

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import EPOCH, HOUR, hour_key
from antenna_assets.domain.schema import ServingTable
from antenna_assets.errors import AntennaError
from antenna_assets.publishing.users import users_version
from antenna_assets.verify.claims import CLAIMS
from antenna_assets.verify.claims.conservation import Held, bytes_are_conserved
from antenna_assets.verify.claims.verdict import Verdict, none_of

LEAST_KNOWN_SHARE = 0.95
"""Share of an hour's bytes. Below it, `user_metadata` is probably out of date, and quotas mean little."""

Published = tuple[int, int | None]
"""The generation of an hour in a table, and the users' version that it was published with."""


class NotInTable(AntennaError):
    """The table was never published for the hour: there is nothing to check."""


def facts_of(table: ServingTable) -> sql.Composed:
    """The query for each hour's rows, bytes, rows with negative bytes, keys, and bytes of known users.

    Its parameters are the `hours`, and the range from `first` to before `end` that they lie in.
    """
    known = sql.SQL("email IS NOT NULL" if "email" in table.columns.names else "false")
    return sql.SQL(
        "SELECT hour, rows, coalesce(bytes, 0), negative, keys, coalesce(known, 0)"
        # Hour by hour, by the index: all hours together are sorted on disk.
        " FROM unnest(%(hours)s::timestamptz[]) AS hour CROSS JOIN LATERAL ("
        "  SELECT count(*) AS rows, sum({sum}) AS bytes, count(*) FILTER (WHERE {sum} < 0) AS negative,"
        "   count(DISTINCT {key}) AS keys, sum({sum}) FILTER (WHERE {known}) AS known FROM {table}"
        "  WHERE date >= hour AND date < hour + interval '1 hour'"
        # This prunes partitions before any is planned.
        "   AND date >= %(first)s AND date < %(end)s) AS used"
    ).format(
        sum=sql.Identifier(table.sum_column),
        key=sql.Identifier(table.key),
        known=known,
        table=sql.Identifier(table.name),
    )


def table_claims(
    connection: psycopg.Connection, table: ServingTable, hours: Sequence[datetime]
) -> dict[datetime, dict[str, Verdict]]:
    """Return those of the table's claims that its own rows decide.

    They are `keys_are_unique`, `no_negative_bytes`, `bytes_are_conserved` and `known_users_share`.

    Raises:
        NotInTable: an hour was never published there.
    """
    claimed = CLAIMS[table.name]
    claims: dict[datetime, dict[str, Verdict]] = {}
    bytes_of: dict[datetime, int] = {}
    first, end = min(hours, default=EPOCH), max(hours, default=EPOCH) + HOUR
    values = {"hours": list(hours), "first": first, "end": end}
    for hour, rows, bytes_, negative, keys, known in connection.execute(facts_of(table), values):
        bytes_of[hour] = int(bytes_)
        claims[hour] = {
            "keys_are_unique": none_of(rows - keys, f"rows with the {table.key} of another"),
            "no_negative_bytes": none_of(negative, "rows with negative bytes"),
        }
        if "known_users_share" in claimed:
            claims[hour]["known_users_share"] = _known_users_share(known, bytes_)
    if "bytes_are_conserved" in claimed:
        at = published(connection, table.name, hours)
        held = [Held(hour, at[hour][0], None, bytes_of[hour]) for hour in hours]
        for hour, verdict in bytes_are_conserved(connection, held).items():
            claims[hour]["bytes_are_conserved"] = verdict
    return claims


def _known_users_share(known: Decimal, all_: Decimal) -> Verdict:
    """At least `LEAST_KNOWN_SHARE` of an hour's bytes are of users that `user_metadata` had."""
    share = float(known / all_) if all_ else 1.0
    message = f"{share:.1%} of the bytes are of known users, at least {LEAST_KNOWN_SHARE:.0%} are expected"
    return Verdict(
        share >= LEAST_KNOWN_SHARE,
        message,
        {"known_users_share": share, "unknown_users_bytes": int(all_ - known)},
    )


def over_quota_is_exact(connection: psycopg.Connection, hours: Sequence[datetime]) -> dict[datetime, Verdict]:
    """The users over quota are those whose bytes are above their quota, no more and no fewer.

    Both tables must be of one generation and users' version to be compared. While a run publishes another
    generation they are not; that run checks them itself, so this passes. At one generation but different
    users this fails with a warning only: the hour is not wholly published, and the sensor requests it until
    it is, with this check again.

    The quotas are those that were in force at the hour's end. Once the users have changed, who is missing can
    no longer be told: then each row is compared with its own quota and the user's bytes.

    Raises:
        NotInTable: an hour was never published in one of the two tables.
    """
    found = published(connection, "users_over_quota_1h", hours)
    used = published(connection, "bytes_agg_user_1h", hours)
    now = users_version(connection)
    same = [hour for hour in hours if found[hour] == used[hour] and found[hour][1] == now]
    earlier = [hour for hour in hours if found[hour] == used[hour] and found[hour][1] != now]
    verdicts = {hour: _not_compared(found[hour], used[hour]) for hour in hours if found[hour] != used[hour]}
    for hour, missing, wrong, rows in _over_quota(connection, _BY_QUOTAS_OF_THEN, same):
        verdicts[hour] = _exact(missing, wrong, rows)
    for hour, missing, wrong, rows in _over_quota(connection, _BY_ITS_OWN_QUOTAS, earlier):
        versions = f"version {found[hour][1]} to {now}"
        remark = f"; the users have changed since ({versions}): missing ones are not looked for"
        verdicts[hour] = _exact(missing, wrong, rows, remark)
    return verdicts


_BY_QUOTAS_OF_THEN = (
    "SELECT used.date, used.id, used.email, of_then.quota, used.sum_user_bytes FROM ("
    # First those who may be over: a look at the history of quotas for each user would hide from the planner
    # what the join itself costs.
    "  SELECT used.date, used.id, users.email, users.quota, users.settled, used.sum_user_bytes"
    "  FROM bytes_agg_user_1h AS used"
    "  JOIN ledger.users_since(ledger.last_instant(%(first)s)) AS users USING (id)"
    "  WHERE used.date = ANY(%(hours)s) AND (NOT users.settled OR used.sum_user_bytes > users.quota)"
    "  OFFSET 0) AS used"
    " CROSS JOIN LATERAL (SELECT CASE WHEN used.settled THEN used.quota ELSE ("
    "  SELECT quota FROM ledger.quota_at(used.id, 'hour', ledger.last_instant(used.date))) END AS quota"
    "  OFFSET 0) AS of_then"
    " WHERE used.sum_user_bytes > of_then.quota"
)
_BY_ITS_OWN_QUOTAS = (
    "SELECT over.date, over.id, used.email, over.quota, used.sum_user_bytes FROM users_over_quota_1h AS over"
    " JOIN bytes_agg_user_1h AS used USING (date, id)"
    " WHERE over.date = ANY(%(hours)s) AND used.sum_user_bytes > over.quota"
)


def _over_quota(
    connection: psycopg.Connection, expected: str, hours: Sequence[datetime]
) -> list[tuple[datetime, int, int, int]]:
    """Each hour, with the users over quota that are missing, that should not be there, and that are there."""
    if not hours:
        return []
    query = sql.SQL(
        "WITH expected AS ({expected}), found AS ("
        "  SELECT date, id, email, quota, sum_user_bytes FROM users_over_quota_1h WHERE date = ANY(%(hours)s)"
        "), missing AS (SELECT date, count(*) FROM (SELECT * FROM expected EXCEPT SELECT * FROM found) AS one"
        "  GROUP BY date"
        "), wrong AS (SELECT date, count(*) FROM (SELECT * FROM found EXCEPT SELECT * FROM expected) AS one"
        "  GROUP BY date"
        "), there AS (SELECT date, count(*) FROM found GROUP BY date)"
        " SELECT date, coalesce(missing.count, 0), coalesce(wrong.count, 0), coalesce(there.count, 0)"
        " FROM unnest(%(hours)s::timestamptz[]) AS date LEFT JOIN missing USING (date)"
        " LEFT JOIN wrong USING (date) LEFT JOIN there USING (date)"
    ).format(expected=sql.SQL(expected))
    return connection.execute(query, {"hours": list(hours), "first": min(hours)}).fetchall()


def _exact(missing: int, wrong: int, rows: int, remark: str = "") -> Verdict:
    message = f"{counted(rows, 'user')} over quota, {missing:,} missing, {wrong:,} that should not be there"
    metrics = {"compared": 1, "users_over_quota": rows, "missing": missing, "wrong": wrong}
    return Verdict(missing == 0 and wrong == 0, message + remark, metrics)


def _not_compared(found: Published, used: Published) -> Verdict:
    message = (
        f"not compared: the table is at generation {found[0]} and users' version {found[1]},"
        f" bytes_agg_user_1h at {used[0]} and {used[1]}; another run publishes the hour or was killed:"
        " the sensor requests it until both are of one version"
    )
    return Verdict(used[0] != found[0], message, {"compared": 0}, only_warns=True)


def published(
    connection: psycopg.Connection, asset: str, hours: Sequence[datetime]
) -> Mapping[datetime, Published]:
    """What a table holds of each hour.

    Raises:
        NotInTable: an hour was never published there.
    """
    rows = connection.execute(
        "SELECT DISTINCT ON (hour) hour, head.generation, publication.users_version"
        " FROM ledger.publication_head AS head JOIN ledger.publication USING (asset, hour, generation)"
        " WHERE asset = %s AND hour = ANY(%s) ORDER BY hour, publication.number DESC",
        [asset, list(hours)],
    )
    found = {hour: (generation, users) for hour, generation, users in rows}
    for hour in hours:
        if hour not in found:
            raise NotInTable(f"{asset} does not hold {hour_key(hour)} yet; materialize {asset} for it first")
    return found
