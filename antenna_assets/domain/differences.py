"""Comparing two keyed collections: the rows that differ, and how a list that is cut short ends.

What the rows are, and how a difference is worded, is up to the caller.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

Key = TypeVar("Key", bound=Any)
Value = TypeVar("Value")


def differences(
    expected: Mapping[Key, Value], found: Mapping[Key, Value], *, absent: Any = None
) -> Iterator[tuple[Key, Any, Any]]:
    """Yield each key whose values differ, ascending, with the expected and the found value.

    Args:
        absent: what a key has where a side lacks it. Must not be a value of its own on the other side.
    """
    for key in sorted(expected.keys() | found.keys()):
        left, right = expected.get(key, absent), found.get(key, absent)
        if left != right:
            yield key, left, right


def and_more(total: int, shown: int) -> str | None:
    """`and 1,234 more` below a list that shows the first `shown` of `total` entries; None if it shows all."""
    return f"and {total - shown:,} more" if total > shown else None
