"""Chains of certificates: the text of each one contains the hash of the one before it.

Hours have one chain (`certificate.py`), days and months another (`period_publications.py`).
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.rows import columns_of, rows_of

Content = dict[str, Any]


@dataclass(frozen=True)
class ChainedCertificate(ABC):
    """A certificate; `sha256` is the hash of `text`, canonical JSON.

    Attributes:
        NAME: what one of this chain is called before its number.
        TABLE: the table in the schema `ledger`, with a column for each field. `<TABLE>_head` has the number
            and the hash of the chain's newest one; its one row is locked by whoever issues the next.
    """

    NAME: ClassVar[str]
    TABLE: ClassVar[str]

    number: int
    generation: int
    users_version: int
    issued_at: datetime
    text: str
    previous_sha256: str
    sha256: str

    @property
    @abstractmethod
    def subject(self) -> dict[str, str]:
        """What it certifies, as its content names it."""

    @property
    def content(self) -> Content:
        """The certified content."""
        return json.loads(self.text)["content"]


AnyCertificate = TypeVar("AnyCertificate", bound=ChainedCertificate)


def canonical(value: Mapping[str, Any]) -> str:
    """Canonical JSON: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_of(text: str) -> str:
    """The hash of a certificate's text, which contains the hash of the previous certificate."""
    return hashlib.sha256(text.encode()).hexdigest()


def issue(
    connection: psycopg.Connection, kind: type[AnyCertificate], content: Content, **of: object
) -> AnyCertificate:
    """Issue the next certificate of a chain, in the caller's transaction.

    Args:
        content: has the `generation` and the `users_version` of what is certified, and its name.
        of: the columns of the table that say what is certified.
    """
    head = _head(kind)
    newest = connection.execute(sql.SQL("SELECT number, sha256 FROM {} FOR UPDATE").format(head)).fetchone()
    if newest is None:
        raise psycopg.DataError(f"ledger.{kind.TABLE}_head is empty: expected its one row")
    number, previous = newest[0] + 1, newest[1]
    issued_at = database_now(connection)
    text = canonical(
        {
            "content": content,
            "issued_at": issued_at.isoformat(),
            "number": number,
            "previous_sha256": previous,
        }
    )
    row = {
        **of,
        "number": number,
        "generation": content["generation"],
        "users_version": content["users_version"],
        "issued_at": issued_at,
        "text": text,
        "previous_sha256": previous,
        "sha256": sha256_of(text),
    }
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier("ledger", kind.TABLE),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        ),
        row,
    )
    connection.execute(sql.SQL("UPDATE {} SET number = %(number)s, sha256 = %(sha256)s").format(head), row)
    return kind(**row)


def newest(connection: psycopg.Connection, kind: type[AnyCertificate], **of: object) -> AnyCertificate | None:
    """The newest certificate of what some columns say, or of the whole chain; None if there is none."""
    conditions = [sql.SQL(" AND {} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in of]
    query = sql.SQL("{} WHERE true{} ORDER BY number DESC LIMIT 1").format(
        _select(kind), sql.Composed(conditions)
    )
    return next(iter(rows_of(connection, kind, query, of)), None)


def whole_chain(connection: psycopg.Connection, kind: type[AnyCertificate]) -> Iterator[AnyCertificate]:
    """All certificates of a chain, from the first on."""
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        yield from cursor.execute(sql.SQL("{} ORDER BY number").format(_select(kind)))


def end_of_chain(connection: psycopg.Connection, kind: type[ChainedCertificate]) -> tuple[int, str] | None:
    """The number and the hash of the newest certificate as the chain's head has them; None if it is empty."""
    return connection.execute(sql.SQL("SELECT number, sha256 FROM {}").format(_head(kind))).fetchone()


def _head(kind: type[ChainedCertificate]) -> sql.Identifier:
    return sql.Identifier("ledger", f"{kind.TABLE}_head")


def _select(kind: type[ChainedCertificate]) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {}").format(columns_of(kind), sql.Identifier("ledger", kind.TABLE))
