"""The charts of a report, as SVG without scripts, so that a page that may run none, as on CI servers, shows
them."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import altair as alt
from altair.typing import ChartType

from antenna_assets.domain.safe_text import labels
from antenna_assets.operations.report.figures import OTHERS, Figures, Rows
from antenna_assets.operations.report.period import Period

_WIDTH, _HEIGHT, _LOW, _BAR = 760, 240, 120, 18
_RED, _GREY = "#c44e52", "#bbbbbb"
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#eeca3b", "#72b7b2", "#ff9da6", "#9d755d")
"""Of the antennas that have a colour of their own."""
STATES = {
    "published": "#4c78a8",
    "publishing again": "#72b7b2",
    "late rows": "#f2a541",
    "closed": "#9d9d9d",
    "open": "#d8d8d8",
}
"""The colour of an hour's state."""

_TIME = alt.X("time:O", title="UTC", axis=alt.Axis(labelAngle=0, labelOverlap=True))


def charts(figures: Figures, period: Period) -> dict[str, str]:
    """Return the SVG of each chart by its title, in the order of the page. A chart without rows is left
    out."""
    late = [
        {"hour": row["hour"], "what": what, "count": row[name]}
        for row in figures.hours
        for what, name in (("late rows", "late_rows"), ("rejected messages", "quarantined"))
        if row[name]
    ]
    # An antenna has one label in both pictures.
    antennas = _labelled([*figures.antennas, *figures.antenna_map], "antenna")
    by_antenna, antenna_map = antennas[: len(figures.antennas)], antennas[len(figures.antennas) :]
    pictures: dict[str, tuple[Callable[[alt.InlineData], ChartType], Rows]] = {
        f"Bytes {'every 5 minutes' if period.is_one_hour else 'by hour'}, by antenna": (
            _by_antenna,
            by_antenna,
        ),
        "Where and when: the busiest antennas": (_map, antenna_map),
        "Users closest to their quota, or over it": (
            _against_quota,
            _labelled(figures.users, "name", key="id"),
        ),
        "Users over quota by hour": (_over_quota, figures.over_by_hour),
        "Apps": (_apps, _labelled(figures.apps, "app")),
        "Minutes from an hour's end to its certificate": (_delays, figures.hours),
        "Late rows and rejected messages": (_late, late),
    }
    return {title: _svg(draw(_inline(rows))) for title, (draw, rows) in pictures.items() if rows}


def _labelled(rows: Rows, name: str, *, key: str | None = None) -> Rows:
    """The rows with a label for the name: one for each key, by default the name itself, and no two alike."""
    names = {row[key or name]: row[name] for row in rows}
    by_key = dict(zip(names, labels([*names.values()]), strict=True))
    return [{**row, name: by_key[row[key or name]]} for row in rows]


def _by_antenna(rows: alt.InlineData) -> alt.Chart:
    names = sorted({row["antenna"] for row in rows.values} - {OTHERS})
    colours = alt.Scale(domain=[*names, OTHERS], range=[*_COLOURS[: len(names)], _GREY])
    bars = alt.Chart(rows, width=_WIDTH, height=_HEIGHT).mark_bar()
    height = alt.Y("sum(bytes):Q", title="bytes", axis=alt.Axis(format="~s"))
    return bars.encode(_TIME, height, alt.Color("antenna:N", title="antenna", scale=colours))


def _map(rows: alt.InlineData) -> alt.Chart:
    cells = alt.Chart(rows, width=_WIDTH, height=alt.Step(_BAR)).mark_rect()
    colour = alt.Color(
        "sum(bytes):Q", title="bytes", scale=alt.Scale(scheme="blues"), legend=alt.Legend(format="~s")
    )
    return cells.encode(_TIME, alt.Y("antenna:N", title=None, sort="-color"), colour)


def _against_quota(rows: alt.InlineData) -> ChartType:
    bars = _bars(rows, "name", alt.X("percent:Q", title="% of the quota in the hour with most"))
    limit = alt.Chart(_inline([{"limit": 100}])).mark_rule(color=_RED).encode(x="limit:Q")
    return alt.layer(bars, limit)


def _over_quota(rows: alt.InlineData) -> alt.Chart:
    return _counts(rows).mark_bar(color=_RED).encode(_TIME, alt.Y("users:Q", title="users"))


def _apps(rows: alt.InlineData) -> alt.Chart:
    return _bars(rows, "app", alt.X("share:Q", title="share of the bytes", axis=alt.Axis(format="%")))


def _delays(rows: alt.InlineData) -> alt.Chart:
    states = alt.Scale(domain=list(STATES), range=list(STATES.values()))
    colour = alt.Color("state:N", title="hour", scale=states)
    return _counts(rows).mark_bar().encode(_TIME, alt.Y("delay_minutes:Q", title="minutes"), colour)


def _late(rows: alt.InlineData) -> alt.Chart:
    height = alt.Y("count:Q", title=None, axis=alt.Axis(format="~s"))
    return (
        _counts(rows).mark_bar().encode(_TIME, height, alt.XOffset("what:N"), alt.Color("what:N", title=None))
    )


def _counts(rows: alt.InlineData) -> alt.Chart:
    return alt.Chart(rows, width=_WIDTH, height=_LOW)


def _bars(rows: alt.InlineData, name: str, length: alt.X) -> alt.Chart:
    """Draw horizontal bars, the longest first."""
    bars = alt.Chart(rows, width=_WIDTH, height=alt.Step(_BAR)).mark_bar()
    return bars.encode(length, alt.Y(f"{name}:N", title=None, sort="-x"))


def _inline(rows: Rows) -> alt.InlineData:
    return alt.InlineData(values=[_plain(row) for row in rows])


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row as JSON, its time as the axis shows it."""
    moment = row.get("date") or row.get("hour")
    values = {name: value for name, value in row.items() if name not in ("date", "hour")}
    return values if moment is None else {**values, "time": f"{moment:%H:%M}"}


def _svg(chart: ChartType) -> str:
    text = StringIO()
    # A reader's fonts may be wider than the ones that the text was measured with.
    chart.configure(padding=16).configure_view(strokeWidth=0).configure_legend(labelLimit=0).configure_axis(
        labelLimit=0
    ).save(text, format="svg")
    return text.getvalue()
