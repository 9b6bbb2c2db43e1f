"""A user's id in PostgreSQL: users, live and hourly sums, notices, and the transformations of replays.

Hours are replaced behind the fence that every publication passes.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

import psycopg
from psycopg import sql

from antenna_assets.domain.schema import HOURLY_TABLES, ServingTable
from antenna_assets.ledger.certificate import certify, publications
from antenna_assets.ledger.publications import (
    Publication,
    begin_publication,
    insert_publication,
    move_publication_head,
)
from antenna_assets.ledger.user_hours import hours_without_users
from antenna_assets.operations.forget.identity import EMAIL, NAME, Identity
from antenna_assets.operations.forget.lake_rewrite import RUN
from antenna_assets.operations.forget.replace_text import Search
from antenna_assets.publishing.csv_rows import CSV_SHA256, stored_sha256

_OF_USERS = ("bytes_agg_user_1h", "users_over_quota_1h")

_HISTORY = (
    ("public", "user_quota_change"),
    ("public", "user_plan_change"),
    ("public", "user_zone_change"),
    ("ledger", "newcomer"),
)
"""The history of users' quotas, plans and time zones, and those whose earlier hours are being looked for."""


def hours_with(connection: psycopg.Connection, users: Collection[str]) -> set[datetime]:
    """Return the hours in which a table has rows of one of these users."""
    found: set[datetime] = set()
    for name in _OF_USERS:
        query = sql.SQL("SELECT DISTINCT date FROM {} WHERE id = ANY(%s)").format(sql.Identifier(name))
        found |= {hour for (hour,) in connection.execute(query, [list(users)]).fetchall()}
    return found


def live_windows(connection: psycopg.Connection, user: str) -> list[datetime]:
    """Return the windows of the live sums that hold the user. Reads the whole table: its key begins with the
    window."""
    rows = connection.execute("SELECT date FROM bytes_agg_user WHERE id = %s", [user])
    return [date for (date,) in rows.fetchall()]


def rename(connection: psycopg.Connection, identity: Identity, windows: Sequence[datetime]) -> None:
    """Replace the id in the users, in the history of quotas and in these windows of the live sums, in the
    caller's transaction. The quotas stay."""
    # As whoever changes quotas: the lock of the users' version comes first.
    connection.execute("SELECT FROM ledger.users_version FOR UPDATE")
    # No statement without the user: each one gives the users a new version. The history comes first: then the
    # pseudonym is no new user.
    for table in _HISTORY:
        _rename_history(connection, table, identity)
    known = connection.execute(
        "SELECT id FROM user_metadata WHERE id = ANY(%s)", [[identity.id, identity.pseudonym]]
    ).fetchall()
    if len(known) == 2:  # The user was added again meanwhile.
        connection.execute("DELETE FROM user_metadata WHERE id = %s", [identity.id])
    elif known == [(identity.id,)]:
        connection.execute(
            "UPDATE user_metadata SET id = %s, name = %s, email = %s WHERE id = %s",
            [identity.pseudonym, NAME, EMAIL, identity.id],
        )
    for table in _HISTORY:
        # What changing the user has added, and what the pseudonym has already.
        if _has(connection, table, identity.id):
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE id = %s").format(sql.Identifier(*table)), [identity.id]
            )
    _rename_alerts(connection, identity)
    # Adds late events that landed after an earlier attempt.
    connection.execute(
        "INSERT INTO bytes_agg_user AS known (date, id, sum_user_bytes)"
        " SELECT date, %s, sum_user_bytes FROM bytes_agg_user WHERE date = ANY(%s) AND id = %s"
        " ON CONFLICT (date, id)"
        " DO UPDATE SET sum_user_bytes = known.sum_user_bytes + excluded.sum_user_bytes",
        [identity.pseudonym, list(windows), identity.id],
    )
    connection.execute(
        "DELETE FROM bytes_agg_user WHERE date = ANY(%s) AND id = %s", [list(windows), identity.id]
    )


def _rename_history(connection: psycopg.Connection, table: tuple[str, str], identity: Identity) -> None:
    if _has(connection, table, identity.id) and not _has(connection, table, identity.pseudonym):
        connection.execute(
            sql.SQL("UPDATE {} SET id = %s WHERE id = %s").format(sql.Identifier(*table)),
            [identity.pseudonym, identity.id],
        )


def _rename_alerts(connection: psycopg.Connection, identity: Identity) -> None:
    """Replace the id in alerts and their rules: what was raised of the user is not of its pseudonym."""
    of_alerts = "(other.period, other.starts, other.percent) = (known.period, known.starts, known.percent)"
    of_rules = "other.period = known.period"
    for table, column, same in (("alert", "id", of_alerts), ("alert_rule", "user_id", of_rules)):
        names = {"table": sql.Identifier(table), "column": sql.Identifier(column), "same": sql.SQL(same)}
        connection.execute(
            sql.SQL(
                "UPDATE {table} AS known SET {column} = %(new)s WHERE {column} = %(old)s AND NOT EXISTS"
                " (SELECT FROM {table} AS other WHERE other.{column} = %(new)s AND {same})"
            ).format(**names),
            {"new": identity.pseudonym, "old": identity.id},
        )
        # The pseudonym has them from an earlier attempt.
        connection.execute(sql.SQL("DELETE FROM {table} WHERE {column} = %s").format(**names), [identity.id])


def _has(connection: psycopg.Connection, table: tuple[str, str], user: str) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE id = %s)").format(sql.Identifier(*table))
    return connection.execute(query, [user]).fetchone() == (True,)


def replace_hours(connection: psycopg.Connection, hour: datetime, identity: Identity) -> None:
    """Replace the id in an hour's tables, and certify the hour again.

    Raises:
        Superseded: a run published a newer generation meanwhile; nothing was changed.
    """
    with connection.transaction():
        heads: dict[str, int] = dict(
            connection.execute(
                "SELECT asset, generation FROM ledger.publication_head WHERE hour = %s AND asset = ANY(%s)"
                " ORDER BY asset",
                [hour, list(_OF_USERS)],
            ).fetchall()
        )
        if hours_without_users(connection, [hour]):
            # Their digest is of rows that are gone: it stays in the certificate, and nobody's id with it.
            heads.pop("bytes_agg_user_1h", None)
        # A run killed between the two leaves them at different generations.
        for asset, generation in heads.items():
            before = publications(connection, {hour: generation})[hour].get(asset)
            if before is not None:
                publication = Publication(
                    asset, hour, generation, before["rows"], before["bytes"], before["users_version"], RUN
                )
                _replace_rows(connection, HOURLY_TABLES[asset], publication, identity)
        if heads:
            certify(connection, {hour: max(heads.values())})


def _replace_rows(
    connection: psycopg.Connection, table: ServingTable, publication: Publication, identity: Identity
) -> None:
    move_publication_head(connection, publication)
    name = sql.Identifier(table.name)
    merged = connection.execute(
        sql.SQL(
            "UPDATE {0} AS kept SET sum_user_bytes = kept.sum_user_bytes + late.sum_user_bytes"
            " FROM {0} AS late"
            " WHERE kept.date = %(hour)s AND kept.id = %(new)s"
            " AND late.date = kept.date AND late.id = %(old)s"
        ).format(name),
        {"hour": publication.hour, "new": identity.pseudonym, "old": identity.id},
    ).rowcount
    if merged:
        # Late events that landed after an earlier attempt, as an unknown user's. The hour is published once
        # more.
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE date = %s AND id = %s").format(name),
            [publication.hour, identity.id],
        )
        publication = replace(publication, rows=publication.rows - merged)
        begin_publication(connection, "enriched_usage", publication.hour, None)
    connection.execute(
        sql.SQL(
            "UPDATE {} SET id = %s, email = CASE WHEN email IS NULL THEN NULL ELSE %s END"
            " WHERE date = %s AND id = %s"
        ).format(name),
        [identity.pseudonym, EMAIL, publication.hour, identity.id],
    )
    content = {CSV_SHA256: stored_sha256(connection, table, publication.hour)}
    insert_publication(connection, replace(publication, content=content))


def rows_with(connection: psycopg.Connection, user: str) -> dict[str, int]:
    """Return the columns that hold the id, as `schema.table.column`, with their number of rows.

    Users are only in the columns `id` of the tables of `public`, in `user_id` of notices and of rules of
    alerts, and in `ledger.newcomer`: an app, an antenna or a word of the ledger that is spelled like the id
    is not a user.
    """
    tables = sorted({*_tables_of_users(connection), *_HISTORY})
    found = {}
    for schema, table, column in [*((*table, "id") for table in tables), *_BY_USER_ID]:
        ((rows,),) = connection.execute(
            sql.SQL("SELECT count(*) FROM {} WHERE {} = %s").format(
                sql.Identifier(schema, table), sql.Identifier(column)
            ),
            [user],
        ).fetchall()
        if rows:
            found[f"{schema}.{table}.{column}"] = rows
    return found


_BY_USER_ID = (("public", "outbox", "user_id"), ("public", "alert_rule", "user_id"))
"""Columns that name the user whom a notice or a rule is about."""


def remove_notices(connection: psycopg.Connection, user: str) -> None:
    """Remove the user's notices and what became of them. Waits for one that is being sent.

    A pseudonym in its body would make another notice of it, under the id of one that was sent.
    """
    connection.execute("DELETE FROM outbox WHERE user_id = %s", [user])


def _tables_of_users(connection: psycopg.Connection) -> list[tuple[str, str]]:
    return connection.execute(
        "SELECT table_schema, table_name FROM information_schema.columns"
        " JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND column_name = 'id'"
        " AND data_type IN ('text', 'character varying')"
        # There it is the notice's own.
        " AND table_name <> 'outbox'"
        # The rows of a partition are those of its table.
        " AND NOT EXISTS (SELECT FROM pg_inherits"
        "  WHERE inhrelid = to_regclass(format('%I.%I', table_schema, table_name))) ORDER BY 2"
    ).fetchall()


def is_a_name(connection: psycopg.Connection, user: str) -> bool:
    """Whether an app or an antenna is named like the user's id."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM bytes_agg_app_1h WHERE app = %(id)s)"
        " OR EXISTS (SELECT FROM bytes_agg_antenna_1h WHERE antenna_id = %(id)s)"
        " OR EXISTS (SELECT FROM bytes_agg_app WHERE app = %(id)s)"
        " OR EXISTS (SELECT FROM bytes_agg_antenna WHERE antenna_id = %(id)s)",
        {"id": user},
    ).fetchone()
    return row == (True,)


def transforms_with(connection: psycopg.Connection, search: Search) -> list[tuple[int, str]]:
    """Return the transformations of replays that name the user: the batch, and the text without the id."""
    rows = connection.execute(
        "SELECT batch, transform FROM ledger.replay WHERE transform IS NOT NULL"
    ).fetchall()
    results = [(batch, search.judge(text.encode())) for batch, text in rows]
    return [(batch, result.value.decode()) for batch, result in results if result.found]


def rewrite_transforms(connection: psycopg.Connection, search: Search) -> None:
    """Replace the id in the transformations of replays."""
    for batch, text in transforms_with(connection, search):
        connection.execute("UPDATE ledger.replay SET transform = %s WHERE batch = %s", [text, batch])
