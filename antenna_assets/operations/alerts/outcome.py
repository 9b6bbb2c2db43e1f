"""What an attempt to send a notice came to, and what follows from it: pure rules."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from antenna_assets.domain.safe_text import safe_text

FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=15)
"""Back-off between attempts: doubled from the first to the longest, less up to a half by chance."""

LONGEST_PAUSE = timedelta(hours=1)
"""The longest Retry-After that is respected."""

GIVE_UP_AFTER = timedelta(days=3)
"""A notice is dead if its next attempt would be later than this after its first one."""

LONGEST_ERROR = 300

State = Literal["waiting", "delivered", "dead"]


@dataclass(frozen=True)
class Notice:
    """A notice to send.

    Attributes:
        now: the instant of this attempt, by PostgreSQL's clock.
    """

    id: str
    kind: str
    level: str
    created_at: datetime
    body: str
    now: datetime


@dataclass(frozen=True)
class Outcome:
    """The result of one attempt.

    Attributes:
        code: the answer's code in HTTP or SMTP; None without an answer.
        error: one line for a person; empty if all is well.
        final: another attempt would fail as well.
        pause: how long the receiver wants nothing to be sent.
    """

    delivered: bool
    code: int | None = None
    error: str = ""
    final: bool = False
    pause: timedelta | None = None


@dataclass(frozen=True)
class Next:
    """The state of a delivery after an attempt, and the wait until the next one if it is `waiting`."""

    state: State
    wait: timedelta = timedelta(0)


def failed(error: str, code: int | None = None, *, final: bool = False) -> Outcome:
    """A failure, with text that is safe to store and show."""
    return Outcome(False, code, safe_text(error, LONGEST_ERROR), final)


def after(outcome: Outcome, *, attempts: int, since_first: timedelta, chance: float) -> Next:
    """What follows from an attempt.

    Args:
        attempts: how many there were, this one included.
        since_first: the time since the first of them.
        chance: a random number from 0 to 1, so that receivers are not asked by all at once.
    """
    if outcome.delivered:
        return Next("delivered")
    wait = outcome.pause if outcome.pause is not None else back_off(attempts, chance)
    if outcome.final or since_first + wait > GIVE_UP_AFTER:
        return Next("dead")
    return Next("waiting", wait)


def back_off(attempts: int, chance: float) -> timedelta:
    """The wait after this many attempts."""
    # Beyond some 30 doublings the multiplication would overflow.
    longest = min(FIRST_WAIT * 2 ** min(attempts - 1, 30), LONGEST_WAIT)
    return longest * (0.5 + chance / 2)
