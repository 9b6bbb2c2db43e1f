"""Small bar charts as SVG for previews, without a plotting library (decision 11).

An antenna may have any name, so every text is escaped.
"""

from collections.abc import Mapping, Sequence
from html import escape

from antenna_assets.domain.safe_text import labels

COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#bab0ac")
"""One for each part of a bar; the last one is for all other parts together."""

WIDTH, BAR_HEIGHT, LINE = 520, 150, 15
_LEFT, _TOP = 64, 10
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def stacked_bars(names: Sequence[str], parts: Mapping[str, Sequence[int]]) -> str:
    """Upright bars of bytes.

    Args:
        names: one for each bar, from left to right.
        parts: by name, from the bottom up, the part's bytes in each bar; at most as many as `COLOURS`.
    """
    totals = [sum(values) for values in zip(*parts.values(), strict=True)] or [0] * len(names)
    highest = max(totals, default=0) or 1
    step = (WIDTH - _LEFT) / max(1, len(names))
    bottoms = [0] * len(names)
    shapes = []
    for colour, values in zip(COLOURS, parts.values(), strict=False):
        bars = []
        for number, value in enumerate(values):
            if value:
                y = _TOP + BAR_HEIGHT * (1 - bottoms[number] / highest)
                bars.append(
                    f"M{_LEFT + number * step:.0f} "
                    f"{y:.1f}h{step - 3:.0f}v{-BAR_HEIGHT * value / highest:.1f}h{3 - step:.0f}z"
                )
            bottoms[number] += value
        shapes.append(f'<path fill="{colour}" d="{"".join(bars)}"/>')
    texts = [_text(_LEFT - 6, _TOP + 9, bytes_text(max(totals, default=0)), "end")]
    texts.append(_text(_LEFT - 6, _TOP + BAR_HEIGHT, "0", "end"))
    texts += [
        _text(_LEFT + (number + 0.5) * step, _TOP + BAR_HEIGHT + LINE, name, "middle")
        for number, name in enumerate(names)
    ]
    legend = zip(COLOURS, labels([*parts]), parts.values(), strict=False)
    for number, (colour, name, values) in enumerate(legend):
        y = _TOP + BAR_HEIGHT + (number + 2.5) * LINE
        shapes.append(f'<rect fill="{colour}" x="{_LEFT}" y="{y - 9:.0f}" width="9" height="9"/>')
        texts.append(_text(_LEFT + 15, y, f"{name}: {bytes_text(sum(values))}"))
    return _svg(_TOP + BAR_HEIGHT + (len(parts) + 2.5) * LINE, [*shapes, *texts])


def bars(values: Mapping[str, int]) -> str:
    """Horizontal bars of bytes, each with its name and value, in the given order."""
    longest = max(values.values(), default=0) or 1
    shapes, texts = [], []
    for number, (name, value) in enumerate(zip(labels([*values]), values.values(), strict=True)):
        y = _TOP + number * LINE * 1.4
        width = (WIDTH - 260) * value / longest
        shapes.append(f"M170 {y:.0f}h{width:.1f}v13h{-width:.1f}z")
        texts.append(_text(164, y + 10, name, "end"))
        texts.append(_text(176 + width, y + 10, bytes_text(value)))
    return _svg(
        _TOP * 2 + len(values) * LINE * 1.4, [f'<path fill="{COLOURS[0]}" d="{"".join(shapes)}"/>', *texts]
    )


def bytes_text(value: int) -> str:
    """A number of bytes for a reader, in units of 1,000: `1.25 MB`."""
    amount, unit = float(value), 0
    # What three digits would round up to 1,000 belongs to the next unit.
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.3g} {_UNITS[unit]}"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, shapes: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        'font-family="sans-serif" font-size="11" fill="#444">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(shapes)}</svg>'
    )
