"""Rows of a query as objects of a class."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import class_row

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row")


def rows_of(
    connection: psycopg.Connection,
    row: type[Row],
    query: str | sql.Composed,
    values: Sequence[object] | Mapping[str, object] | None = None,
) -> list[Row]:
    """The rows of a query, whose columns are the attributes of the class.

    Without values a `%` in the query stands for itself.
    """
    with connection.cursor(row_factory=class_row(row)) as cursor:
        return cursor.execute(query.encode() if isinstance(query, str) else query, values).fetchall()


def columns_of(row: type["DataclassInstance"]) -> sql.Composed:
    """The fields of a dataclass as the columns of a query."""
    return sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(row))
