"""Whether a user may transfer more bytes: the answer of PostgreSQL's function `allowance`."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

import psycopg
from psycopg.rows import class_row

Period = Literal["hour", "day", "month"]


@dataclass(frozen=True)
class Allowance:
    """An answer on one user and its running period.

    Attributes:
        answer: `allowed`, `over quota`, `unlimited`, `no quota`, `unknown user`, or, where a yes would
            be a guess, `stale` or `incomplete`.
        allowed: None if the answer is neither a yes nor a no.
        quota: bytes of the period; None if there is no limit.
        used: `published` and `live` together: bytes in published hours, and what the stream has counted of
            the others.
        as_of: everything that Kafka held then is counted; None before the stream has first read everything.
        exact: nothing can be missing.
        generation: of the newest published hour in `published`; `certificate` is its certificate's number.
    """

    user: str
    period: str
    answer: str
    allowed: bool | None
    quota: int | None
    used: Decimal
    remaining: Decimal | None
    requested: int
    starts: datetime
    ends: datetime
    as_of: datetime | None
    lag_seconds: float | None
    exact: bool
    source: str
    published: Decimal
    live: Decimal
    generation: int | None
    certificate: int | None


def allowance_of(
    connection: psycopg.Connection, user: str, *, bytes_: int, period: Period, at: datetime | None = None
) -> Allowance:
    """Ask whether a user may transfer so many more bytes in its running hour, day or month.

    Args:
        at: as if it were asked at this instant, by what is known now. None: now.
    """
    query, values = "SELECT * FROM allowance(%s, %s, %s)", [user, bytes_, period]
    if at is not None:
        query, values = (
            "SELECT * FROM ledger.allowance_at(%s, %s, %s, interval '1 minute', %s)",
            [*values, at],
        )
    with connection.cursor(row_factory=class_row(Allowance)) as cursor:
        answers = cursor.execute(query.encode(), values).fetchall()
    return answers[0]
