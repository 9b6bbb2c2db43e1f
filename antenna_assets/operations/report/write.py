"""`antenna report`: reads the figures, draws the charts and writes the page."""

from datetime import UTC, datetime
from pathlib import Path

import psycopg

from antenna_assets.clients.migrations import require_migrated
from antenna_assets.operations.report.charts import charts
from antenna_assets.operations.report.figures import read_figures
from antenna_assets.operations.report.page import page
from antenna_assets.operations.report.period import Period, ReportError, newest_day, one_day, one_hour
from antenna_assets.storage.atomic_files import replacing


def write_report(
    connection: psycopg.Connection,
    *,
    hour: str | None = None,
    day: str | None = None,
    output: Path | None = None,
) -> Path:
    """Write the page of an hour or a day, by default of the day of the newest published hour; returns its
    path.

    Args:
        output: by default `antenna-<hour or day>.html` in the working directory; replaced atomically.

    Raises:
        ReportError: the period is empty, or the file cannot be written.
        NotAnHour: `hour` is not an hour.
        DatabaseError: the schema is older than this package.
    """
    require_migrated(connection)
    period = _period(connection, hour, day)
    figures = read_figures(connection, period)
    text = page(period, figures, charts(figures, period), now=datetime.now(UTC))
    path = output or Path(f"antenna-{period.name.replace(':', '')}.html")
    try:
        with replacing(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror}; choose another --output") from error
    return path


def _period(connection: psycopg.Connection, hour: str | None, day: str | None) -> Period:
    if hour is not None and day is not None:
        raise ReportError("expected --hour or --day, found both")
    if hour is not None:
        return one_hour(hour)
    return newest_day(connection) if day is None else one_day(day)
