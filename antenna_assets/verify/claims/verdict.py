"""The answer of every claim."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, in one sentence and in figures: bytes, rows, shares from 0 to 1.

    `only_warns`: it does not hold, but nothing that is published is known to be wrong.
    """

    passed: bool
    message: str
    metrics: Mapping[str, int | float] = field(default_factory=dict)
    only_warns: bool = False


def none_of(count: int, what: str) -> Verdict:
    """There are none of the things that must not be."""
    return Verdict(count == 0, f"{count or 'no'} {what}", {"found": count})
