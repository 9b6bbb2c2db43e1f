"""Deliveries for a terminal."""

from collections.abc import Iterable

from rich.table import Table

from antenna_assets.domain.fitting_table import FittingTable, number_columns
from antenna_assets.domain.safe_text import safe_cell
from antenna_assets.operations.alerts.review import Delivery

_COLOURS = {"waiting": "yellow", "delivered": "green", "dead": "red"}


def deliveries_table(deliveries: Iterable[Delivery]) -> Table:
    """A row for each."""
    attempts, code = number_columns("attempts", "code")
    table = FittingTable(
        "id",
        "kind",
        "level",
        "written, UTC",
        "channel",
        "state",
        attempts,
        "next or sent, UTC",
        code,
        "error",
    )
    for one in deliveries:
        when = one.next_attempt or one.delivered_at
        table.add_row(
            one.id,
            one.kind,
            one.level,
            f"{one.created_at:%Y-%m-%d %H:%M:%S}",
            one.channel,
            f"[{_COLOURS[one.state]}]{one.state}[/]",
            f"{one.attempts:,}",
            "" if when is None else f"{when:%Y-%m-%d %H:%M:%S}",
            "" if one.status_code is None else str(one.status_code),
            safe_cell(one.last_error or ""),
        )
    return table
