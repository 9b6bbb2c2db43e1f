"""Who is forgotten and what takes their place, remembered until it is done."""

from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pyarrow as pa

from antenna_assets.errors import AntennaError

NAME = "forgotten"
EMAIL = "forgotten@invalid"
"""Of every forgotten user who was known. No mail goes to `invalid`."""

IDENTITY = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("id", "new_id", "new_name", "new_email")]
)


class NoIdentity(AntennaError):
    """A text that no user's id can be."""


@dataclass(frozen=True)
class Identity:
    """A user's id, and the pseudonym in its place: random, so that nothing leads back."""

    id: str
    pseudonym: str

    @property
    def row(self) -> pa.Table:
        """The one row that transformations join with, of the columns of `IDENTITY`."""
        return pa.table([[self.id], [self.pseudonym], [NAME], [EMAIL]], schema=IDENTITY)


def require_identity(user: str) -> None:
    """Stop if nobody can have this id.

    Raises:
        NoIdentity: it is blank, or no text that PostgreSQL and a file can hold.
    """
    if (
        not user.strip()
        or "\x00" in user
        or (not user.isprintable() and any("\ud800" <= c <= "\udfff" for c in user))
    ):
        raise NoIdentity(f"expected a user's id, which is UTF-8 and not blank, found {user!r}")


def remember(connection: psycopg.Connection, user: str) -> Identity:
    """The user with a pseudonym: the one that was chosen before, if a run for this user was not finished."""
    connection.execute(
        "INSERT INTO ledger.forgotten (pseudonym, id) VALUES (%s, %s) ON CONFLICT (id) DO NOTHING",
        [f"forgotten-{uuid4()}", user],
    )
    ((pseudonym,),) = connection.execute(
        "SELECT pseudonym FROM ledger.forgotten WHERE id = %s", [user]
    ).fetchall()
    return Identity(user, pseudonym)


def is_unfinished(connection: psycopg.Connection, user: str) -> bool:
    """Whether a run for this user was begun and did not come to its end."""
    return connection.execute("SELECT FROM ledger.forgotten WHERE id = %s", [user]).fetchone() is not None


def let_go(connection: psycopg.Connection, identity: Identity, *, hours: int, unjudged: int) -> None:
    """Forget the id here, too: the last step."""
    connection.execute(
        "UPDATE ledger.forgotten SET id = NULL, done_at = clock_timestamp(), hours = %s, unjudged = %s,"
        " dropped = coalesce(dropped, 0) WHERE pseudonym = %s",
        [hours, unjudged, identity.pseudonym],
    )
