"""Replacing hours of a serving table in PostgreSQL.

The rows come from the transforms; the fence and the publications are recorded by `ledger/publications.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.domain.schema import ServingTable
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.certificate import certify
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.publications import (
    Publication,
    insert_publication,
    move_publication_head,
    require_nobody_forgotten,
)
from antenna_assets.ledger.user_hours import keeping_user_days
from antenna_assets.publishing.copying import copy_rows
from antenna_assets.publishing.csv_rows import csv_of


@dataclass(frozen=True)
class HourOfTable:
    """An hour of a table that is to be published.

    Attributes:
        version: what is published, with `rows` and `bytes` not counted yet.
        rows: batches with the table's columns except `date`, in the order of the key's bytes.
        bytes: what the rows must sum up to; None if that is not known.
    """

    version: Publication
    rows: Iterable[pa.RecordBatch]
    bytes: int | None


def replace_hours(
    connection: psycopg.Connection, table: ServingTable, hours: Sequence[HourOfTable]
) -> dict[datetime, Publication | Superseded | AntennaError]:
    """Replace hours of a table in one transaction, which also certifies those that are wholly published then.

    Readers see the old hours or the new ones, never a part of either.

    Args:
        hours: ascending.

    Returns:
        What was published of each hour, the newer version for which it was left out, or the error with which
        it failed; nothing was changed of the latter two.

    Raises:
        ForgottenMeanwhile: a user was forgotten since the connection was opened. Nothing was changed.
    """
    done: dict[datetime, Publication | Superseded | AntennaError] = {}
    commit_point("publish.table.computed")
    of_users = table.name == "bytes_agg_user_1h"
    with (
        keeping_user_days(connection, [one.version.hour for one in hours])
        if of_users
        else connection.transaction()
    ):
        for one in hours:
            try:
                # A savepoint: an hour that fails is undone, and the others are not.
                with connection.transaction():
                    done[one.version.hour] = _replace(connection, table, one)
            except (Superseded, AntennaError) as left_out:
                done[one.version.hour] = left_out
        require_nobody_forgotten(connection)
        published = (one for one in done.values() if isinstance(one, Publication))
        certify(connection, {one.hour: one.generation for one in published})
    commit_point("publish.table.committed")
    return done


def _replace(connection: psycopg.Connection, table: ServingTable, hour: HourOfTable) -> Publication:
    # The fence comes first, and locks the hour until the transaction ends.
    move_publication_head(connection, hour.version)
    commit_point("publish.table.fenced")
    connection.execute(
        sql.SQL("DELETE FROM {} WHERE date = %s").format(sql.Identifier(table.name)), [hour.version.hour]
    )
    commit_point("publish.table.deleted")
    published = _copy(connection, table, hour)
    insert_publication(connection, published)
    commit_point("publish.table.copied")
    return published


def _copy(connection: psycopg.Connection, table: ServingTable, hour: HourOfTable) -> Publication:
    """Insert the rows of an hour; returns what was published.

    Raises:
        LedgerError: the rows have other bytes than they must have.
        EngineError: the rows cannot be computed.
    """
    copied = copy_rows(
        connection,
        table.name,
        ["date", *table.columns.names],
        hour.rows,
        csv_of=lambda batch: csv_of(hour.version.hour, batch),
        sum_column=table.sum_column,
    )
    if hour.bytes is not None and copied.bytes != hour.bytes:
        raise LedgerError(f"{table.name}: expected the hour's {hour.bytes} bytes, found {copied.bytes}")
    return replace(hour.version, rows=copied.rows, bytes=copied.bytes, content=copied.content)
