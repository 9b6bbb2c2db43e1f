"""A report as one self-contained HTML page."""

from datetime import datetime
from pathlib import Path

import jinja2
from markupsafe import Markup

from antenna_assets.domain.safe_text import safe_name
from antenna_assets.operations.report.figures import Figures
from antenna_assets.operations.report.period import Period

_TEMPLATE = Path(__file__).with_name("page.html.j2")


def page(period: Period, figures: Figures, pictures: dict[str, str], *, now: datetime) -> str:
    """Return the page's HTML. Text that came with events is escaped.

    Args:
        pictures: SVG by title, its texts escaped already.
        now: when the report was made, aware.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["safe_name"] = safe_name
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        period=period,
        figures=figures,
        pictures={title: Markup(svg) for title, svg in pictures.items()},
        now=now,
    )
