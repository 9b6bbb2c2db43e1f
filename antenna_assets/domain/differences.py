"""Comparing two keyed collections: the rows that differ.

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
