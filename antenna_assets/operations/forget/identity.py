"""The user who is forgotten and their pseudonym, recorded in the ledger until all is done."""

from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pyarrow as pa

from antenna_assets.errors import AntennaError

NAME = "forgotten"
EMAIL = "forgotten@invalid"
"""Name and e-mail of every forgotten user who was known. The domain `invalid` has no mail (RFC 2606)."""

IDENTITY = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("id", "new_id", "new_name", "new_email")]
)


class NoIdentity(AntennaError):
    """A text that cannot be a user's id."""


@dataclass(frozen=True)
class Identity:
    """A user's id and its pseudonym, which is random, so that nothing leads back."""

    id: str
    pseudonym: str

    @property
    def row(self) -> pa.Table:
        """The single row that transformations join with, with the columns of `IDENTITY`."""
        return pa.table([[self.id], [self.pseudonym], [NAME], [EMAIL]], schema=IDENTITY)


def require_identity(user: str) -> None:
    """Refuse a text that nobody can have as an id.

    Raises:
        NoIdentity: it is blank, or PostgreSQL or a file cannot hold it.
    """
    if (
        not user.strip()
        or "\x00" in user
        or (not user.isprintable() and any("\ud800" <= c <= "\udfff" for c in user))
    ):
        raise NoIdentity(f"expected a user's id, in UTF-8 and not blank, found {user!r}")


def record(connection: psycopg.Connection, user: str) -> Identity:
    """Record the user with a new pseudonym, or return the one of an unfinished run for this user."""
    connection.execute(
        "INSERT INTO ledger.forgotten (pseudonym, id) VALUES (%s, %s) ON CONFLICT (id) DO NOTHING",
        [f"forgotten-{uuid4()}", user],
    )
    ((pseudonym,),) = connection.execute(
        "SELECT pseudonym FROM ledger.forgotten WHERE id = %s", [user]
    ).fetchall()
    return Identity(user, pseudonym)


def is_unfinished(connection: psycopg.Connection, user: str) -> bool:
    """Whether a run for this user was started and has not finished."""
    return connection.execute("SELECT FROM ledger.forgotten WHERE id = %s", [user]).fetchone() is not None


def erase(connection: psycopg.Connection, identity: Identity, *, hours: int, unjudged: int) -> None:
    """Erase the id from the record, too: the last step."""
    connection.execute(
        "UPDATE ledger.forgotten SET id = NULL, done_at = clock_timestamp(), hours = %s, unjudged = %s,"
        " dropped = coalesce(dropped, 0) WHERE pseudonym = %s",
        [hours, unjudged, identity.pseudonym],
    )
