"""How landing folders are named: the hour in a folder name, and the folder of rejected messages."""

from datetime import UTC, datetime

REJECTED_FOLDER = "rejected"
"""Where the rejected messages of an attempt lie; accepted events have a folder `hour=yyyyMMddHH` each hour."""


LANDING_FORMAT = "%Y%m%d%H"
"""The hour in the name of a landing folder, as `2026112210`."""


def landing_hour(name: str) -> datetime:
    """The hour in a landing folder's name, as `2026112210`."""
    return datetime.strptime(name, LANDING_FORMAT).replace(tzinfo=UTC)
