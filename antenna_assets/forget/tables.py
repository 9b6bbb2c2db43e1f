"""A user's id in PostgreSQL: the users, live and hourly sums, and what Dagster was told of runs.

Hours are replaced under the fence that every publication passes.
"""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

import psycopg
from psycopg import sql

from antenna_assets.certificate import certify, publications
from antenna_assets.contents import RowsDigest
from antenna_assets.forget.identity import EMAIL, NAME, Identity
from antenna_assets.forget.lake import RUN
from antenna_assets.forget.spelled import redrawn, replaced
from antenna_assets.hours import hour_key
from antenna_assets.ledger import Publication, insert_publication, move_head
from antenna_assets.schema import HOURLY_TABLES, ServingTable

_OF_USERS = ("bytes_agg_user_1h", "users_over_quota_1h")
_SCHEMAS = ["public", "ledger", "dagster"]
# Where the id stays until all else is done.
_LAST = "ledger.forgotten"


def hours_with(connection: psycopg.Connection, users: Collection[str]) -> set[datetime]:
    """The hours of which a table has rows of one of these users."""
    found: set[datetime] = set()
    for name in _OF_USERS:
        query = sql.SQL("SELECT DISTINCT date FROM {} WHERE id = ANY(%s)").format(sql.Identifier(name))
        found |= {hour for (hour,) in connection.execute(query, [list(users)]).fetchall()}
    return found


def rename(connection: psycopg.Connection, identity: Identity) -> None:
    """The pseudonym in the users and the live sums, in the caller's transaction. The quota stays."""
    # Without the user no statement: each one gives the users a new version.
    if connection.execute("SELECT FROM user_metadata WHERE id = %s", [identity.id]).fetchone() is not None:
        connection.execute(
            "UPDATE user_metadata SET id = %s, name = %s, email = %s WHERE id = %s",
            [identity.pseudonym, NAME, EMAIL, identity.id],
        )
    connection.execute("UPDATE bytes_agg_user SET id = %s WHERE id = %s", [identity.pseudonym, identity.id])


def replace_hours(connection: psycopg.Connection, hour: datetime, identity: Identity) -> None:
    """The pseudonym in an hour's tables, and a certificate of the hour as it is then.

    Raises:
        Superseded: a run published a newer generation meanwhile; nothing was changed.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT max(generation) FROM ledger.publication_head WHERE hour = %s AND asset = ANY(%s)",
            [hour, list(_OF_USERS)],
        ).fetchone()
        if row is None or row[0] is None:
            return
        generation = row[0]
        for asset, before in publications(connection, hour, generation).items():
            if asset in _OF_USERS:
                publication = Publication(
                    asset, hour, generation, before["rows"], before["bytes"], before["users_version"], RUN
                )
                _replace_rows(connection, HOURLY_TABLES[asset], publication, identity)
        certify(connection, hour, generation)


def _replace_rows(
    connection: psycopg.Connection, table: ServingTable, publication: Publication, identity: Identity
) -> None:
    move_head(connection, publication)
    name = sql.Identifier(table.name)
    connection.execute(
        sql.SQL(
            "UPDATE {} SET id = %s, email = CASE WHEN email IS NULL THEN NULL ELSE %s END WHERE date = %s AND id = %s"
        ).format(name),
        [identity.pseudonym, EMAIL, publication.hour, identity.id],
    )
    digest = RowsDigest()
    # In the byte order of the key, as every publication counts.
    select = sql.SQL('SELECT {} FROM {} WHERE date = %s ORDER BY {} COLLATE "C"').format(
        sql.SQL(", ").join(map(sql.Identifier, table.columns.names)), name, sql.Identifier(table.key)
    )
    with connection.cursor(name="rows") as rows:
        for stored in rows.execute(select, [publication.hour]):
            digest.add(stored)
    insert_publication(connection, replace(publication, content={"sha256": digest.sha256}))


def rewrite_what_dagster_was_told(
    connection: psycopg.Connection, hours: Collection[datetime], identity: Identity
) -> None:
    """The pseudonym in previews and pictures of runs: Dagster keeps them for ever."""
    pictured = [hour_key(hour) for hour in hours]
    for table, column, _ in _texts(connection):
        if table.startswith("dagster."):
            _rewrite_texts(connection, table, column, pictured, identity)


def _rewrite_texts(
    connection: psycopg.Connection, table: str, column: str, pictured: Collection[str], identity: Identity
) -> None:
    names = {"table": sql.Identifier(*table.split(".")), "column": sql.Identifier(column)}
    where = sql.SQL("strpos({column}::text, %(id)s) > 0").format(**names)
    if (table, column) == ("dagster.event_logs", "event"):
        where += sql.SQL(" OR partition = ANY(%(hours)s) AND strpos(event, 'image/svg') > 0")
    elif (table, column) == ("dagster.asset_keys", "last_materialization"):
        where += sql.SQL(" OR strpos(last_materialization, 'image/svg') > 0")
    rows = connection.execute(
        sql.SQL("SELECT ctid, {column}::text FROM {table} WHERE ").format(**names) + where,
        {"id": identity.id, "hours": list(pictured)},
    ).fetchall()
    for place, text in rows:
        changed = redrawn(
            replaced(text.encode(), identity.id, identity.pseudonym).decode(), identity.id, identity.pseudonym
        )
        if changed != text:
            connection.execute(
                sql.SQL("UPDATE {table} SET {column} = %s WHERE ctid = %s AND {column}::text = %s").format(
                    **names
                ),
                [changed, place, text],
            )


def rows_with(connection: psycopg.Connection, user: str) -> dict[str, int]:
    """The columns of all tables that have the id, by `schema.table.column`, and in how many rows.

    In Dagster's texts and in JSON the id is looked for within.
    """
    found = {}
    for table, column, within in _texts(connection):
        names = {"table": sql.Identifier(*table.split(".")), "column": sql.Identifier(column)}
        condition = sql.SQL("strpos({column}::text, %s) > 0" if within else "{column} = %s").format(**names)
        ((rows,),) = connection.execute(
            sql.SQL("SELECT count(*) FROM {table} WHERE ").format(**names) + condition, [user]
        ).fetchall()
        if rows and table != _LAST:
            found[f"{table}.{column}"] = rows
    return found


def _texts(connection: psycopg.Connection) -> list[tuple[str, str, bool]]:
    """Every column of every table that can hold a text, and whether the text may be a part of what it holds."""
    return connection.execute(
        "SELECT table_schema || '.' || table_name, column_name, table_schema = 'dagster' OR data_type LIKE 'json%%'"
        " FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE table_schema = ANY(%s) AND table_type = 'BASE TABLE'"
        " AND data_type IN ('text', 'character varying', 'json', 'jsonb') ORDER BY 1, 2",
        [_SCHEMAS],
    ).fetchall()
