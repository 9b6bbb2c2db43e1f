from io import StringIO

import pytest
from rich.console import Console

from antenna_assets.domain.fitting_table import FittingTable, number_columns

NUMBERS = ["9,223,372,036,854,775,807", "26,168,123", "1,234,567,890,123"]


def table() -> FittingTable:
    found = FittingTable("hour", "state", *number_columns("rows", "late rows", "bytes"), title="Hours")
    found.add_row("2026-11-22-10:00", "closed by the watermark", *NUMBERS)
    found.caption = "the newest 24 hours"
    return found


def shown(width: int) -> str:
    console = Console(width=width, file=StringIO(), emoji=False)
    console.print(table())
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    text = shown(width)
    assert all(number in text for number in (*NUMBERS, "2026-11-22-10:00"))
    assert max(map(len, text.splitlines())) <= max(width, len("late rows") + 2 + len(NUMBERS[0]))
    assert "…" not in text
    assert "the newest 24 hours" in text.replace("\n", " ")


def test_rows_that_do_not_fit_are_lists() -> None:
    assert shown(60).splitlines() == [
        "Hours",
        "",
        "hour       2026-11-22-10:00",
        "state      closed by the watermark",
        "rows       9,223,372,036,854,775,807",
        "late rows  26,168,123",
        "bytes      1,234,567,890,123",
        "",
        "the newest 24 hours",
        "",
    ]


def test_rows_that_fit_are_a_table() -> None:
    assert "2026-11-22-10:00" in shown(120).splitlines()[4]
    assert NUMBERS[0] in shown(120).splitlines()[4]
