"""A quota as people write it: a number of bytes, `unlimited`, or `plan`."""

from dataclasses import dataclass
from typing import Literal, get_args

from antenna_assets.errors import AntennaError

MOST = 2**63 - 1
"""What a column of PostgreSQL holds."""

Period = Literal["hour", "day", "month"]
PERIODS: tuple[str, ...] = get_args(Period)


class QuotaRefused(AntennaError):
    """A quota cannot be set as it was asked for; nothing was changed."""


@dataclass(frozen=True)
class Quota:
    """What holds from an instant on.

    Attributes:
        bytes: None for `unlimited` and `plan`.
        of_plan: the user has no quota of its own, but that of its plan.
    """

    bytes: int | None
    of_plan: bool = False


def parse_quota(text: str) -> Quota:
    """The quota that a text names.

    Raises:
        QuotaRefused: it names none.
    """
    if text == "unlimited":
        return Quota(None)
    if text == "plan":
        return Quota(None, of_plan=True)
    if not (text.isascii() and text.isdecimal()) or int(text) > MOST:
        raise QuotaRefused(f"expected a number of bytes from 0 to 2^63-1, unlimited or plan; found {text!r}")
    return Quota(int(text))


def parse_period(text: str) -> str:
    """The period that a text names.

    Raises:
        QuotaRefused: it names none.
    """
    if text not in PERIODS:
        raise QuotaRefused(f"expected one of the periods {', '.join(PERIODS)}; found {text!r}")
    return text


def quota_text(quota: int | None) -> str:
    """A quota for a reader."""
    return "unlimited" if quota is None else f"{quota:,}"
