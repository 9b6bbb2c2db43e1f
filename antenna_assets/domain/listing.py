"""Long lists in messages and tables: the first few items, and how many more there are."""

from collections.abc import Sequence

from antenna_assets.domain.counted import counted


def and_more(total: int, shown: int, what: str = "") -> str:
    """`and 1,497 more`, or `and 2 more partitions` with `what`; empty if all `total` items are shown.

    Args:
        what: the noun of one item.
    """
    if total <= shown:
        return ""
    rest = total - shown
    return f"and {counted(rest, f'more {what}')}" if what else f"and {rest:,} more"


def first_few(
    items: Sequence[str], shown: int, *, total: int | None = None, separator: str = ", ", what: str = ""
) -> str:
    """`a, b, c and 4 more`: the first `shown` items in one line.

    Args:
        total: how many there are, if `items` has only the first of them.
        separator: between items; one with a semicolon also precedes `and`.
        what: the noun of one item, which then stands behind `more`.
    """
    rest = and_more(len(items) if total is None else total, shown, what)
    before_rest = "; " if separator.startswith(";") else " "
    return separator.join(items[:shown]) + (before_rest + rest if rest else "")
