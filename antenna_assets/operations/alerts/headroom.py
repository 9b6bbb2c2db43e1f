"""Headroom: how many more bytes each user may get before anything of its alerts can change.

Of a million users who get bytes, few reach a percentage of a quota. What was asked of the others need not be
asked again until so many bytes have landed: see `docs/decisions/0041-headroom-is-remembered.md`. It is kept
in memory, on the safe side: bytes that are counted twice, or of another period, only make the watch ask
earlier.
"""

from array import array
from collections.abc import Iterable, Iterator

from antenna_assets.ledger.alerts import PERIODS, UserHeadroom

SLOT = 15 * 60 * 1_000_000
"""Bytes are attributed to slots of 15 minutes, in microseconds: nearly all zones' days begin with one."""

USERS = 2_000_000
"""The most users that are remembered, some 250 bytes each; the others are asked about when they get bytes."""

_EVER = 2**63 - 1

Landed = tuple[str, int, int]
"""A user, the number of a slot since 1970, and the bytes that landed of it."""


class Headroom:
    """What is remembered of users: the newest period of each kind, and the bytes that are left in it.

    Attributes:
        most: so many users at most.
        filled: everybody was asked about, and not forgotten since.
    """

    def __init__(self, users: int = USERS) -> None:
        self.most = users
        self.filled = False
        self._basis = ""
        self._rows: dict[str, int] = {}
        # By kind of period and the user's row: bytes, and the period in microseconds since 1970.
        self._left = {period: array("q") for period in PERIODS}
        self._starts = {period: array("q") for period in PERIODS}
        self._ends = {period: array("q") for period in PERIODS}

    def rest_on(self, basis: str) -> None:
        """Forget everything unless it was asked with the same basis (`ledger.alerts.headroom_basis`)."""
        if basis != self._basis:
            self.forget()
        self._basis = basis

    def spend(self, period: str, landed: Iterable[Landed]) -> list[str]:
        """Take bytes that landed from the headroom of their users; who has to be asked about, each once."""
        left, starts, ends = self._left[period], self._starts[period], self._ends[period]
        asked: dict[str, None] = {}
        for user, slot, bytes_ in landed:
            row = self._rows.get(user)
            if row is None or not starts[row] <= slot * SLOT <= ends[row] - SLOT:
                asked[user] = None
                continue
            left[row] = max(left[row] - bytes_, 0)
            if not left[row]:
                asked[user] = None
        return list(asked)

    def keep(self, period: str, users: Iterable[UserHeadroom]) -> None:
        """Remember what was asked; of a user's periods the newest."""
        left, starts, ends = self._left[period], self._starts[period], self._ends[period]
        for user, first, end, headroom in users:
            row = self._row(user)
            if row is None or (first is not None and ends[row] > starts[row] > first):
                continue
            left[row] = headroom
            starts[row] = -_EVER if first is None else first
            ends[row] = _EVER if end is None else end

    def _row(self, user: str) -> int | None:
        """The user's row, a new one if need be; None if there are too many."""
        row = self._rows.get(user)
        if row is None and len(self._rows) < self.most:
            row = self._rows[user] = len(self._rows)
            for values in self._columns():
                values.append(0)
        return row

    def forget(self) -> None:
        """Forget everything: whoever gets bytes is asked about."""
        self.filled = False
        self._rows.clear()
        for values in self._columns():
            del values[:]

    def _columns(self) -> Iterator[array]:
        for by_period in (self._left, self._starts, self._ends):
            yield from by_period.values()
