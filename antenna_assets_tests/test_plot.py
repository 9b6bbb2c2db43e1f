"""Plots: what is in them can be read back from the SVG, and no name breaks it."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.defs.assets.plot import BAR_HEIGHT, COLOURS, bars, bytes_text, stacked_bars

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_stacked_bars_are_as_high_as_their_bytes() -> None:
    svg = stacked_bars([":00", ":05"], {"north": [300, 0], "south": [100, 200]})
    paths = [element.get("d") for element in ElementTree.fromstring(svg).iter(f"{SVG}path")]
    # North stands on the ground, 300 of 400 high; south on top of it, and beside it half as high as both.
    assert paths == [
        f"M64 {10 + BAR_HEIGHT:.1f}h225v{-BAR_HEIGHT * 0.75:.1f}h-225z",
        f"M64 {10 + BAR_HEIGHT * 0.25:.1f}h225v{-BAR_HEIGHT * 0.25:.1f}h-225z"
        f"M292 {10 + BAR_HEIGHT:.1f}h225v{-BAR_HEIGHT * 0.5:.1f}h-225z",
    ]
    assert texts(svg) == ["400 B", "0", ":00", ":05", "north: 300 B", "south: 300 B"]


def test_bars_show_each_name_with_its_bytes() -> None:
    assert texts(bars({"a": 1_250_000, "b": 0})) == ["a", "1.25 MB", "b", "0 B"]


def test_a_long_name_keeps_both_of_its_ends() -> None:
    name = "00000000-1111-1111-1111-111111111114"
    assert texts(bars({name: 1}))[0] == "00000000\u202611-111111111114"
    assert texts(stacked_bars(["0"], {name: [7]}))[-1].endswith("1114: 7 B")


def test_bytes_are_told_in_units_of_a_thousand() -> None:
    values = (0, 999, 1000, 1_250_000, 999_999_999, 2**63 - 1)
    assert [bytes_text(value) for value in values] == ["0 B", "999 B", "1 kB", "1.25 MB", "1 GB", "9.22 EB"]


@given(
    names=st.lists(st.text(max_size=70), max_size=len(COLOURS), unique=True),
    heights=st.lists(st.integers(0, 2**60), min_size=3, max_size=3),
)
def test_whatever_a_name_is_the_picture_is_whole(names: list[str], heights: list[int]) -> None:
    ElementTree.fromstring(stacked_bars([":00", ":05", ":10"], dict.fromkeys(names, heights)))
    ElementTree.fromstring(bars(dict.fromkeys(names, heights[0])))
