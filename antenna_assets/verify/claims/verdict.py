"""The result of checking a claim."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, as a sentence and as numbers.

    Attributes:
        metrics: bytes, rows, and shares from 0 to 1, by name.
        only_warns: the claim failed, but nothing that is published is known to be wrong.
    """

    passed: bool
    message: str
    metrics: Mapping[str, int | float] = field(default_factory=dict)
    only_warns: bool = False


def none_of(count: int, what: str) -> Verdict:
    """Pass if `count` things that must not exist are none."""
    return Verdict(count == 0, f"{count or 'no'} {what}", {"found": count})
