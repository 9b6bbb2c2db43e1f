"""A number with its noun."""


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 file`, `0 files`, `1,234 files`.

    Args:
        one: the noun of one thing, with what follows it if that changes as well, such as `hour is`.
        many: that of several, such as `hours are`; by default with an s.
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
