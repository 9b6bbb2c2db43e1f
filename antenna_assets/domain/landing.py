"""Names of landing folders: one for each hour of accepted events, one for rejected messages."""

from datetime import UTC, datetime

REJECTED_FOLDER = "rejected"
"""The folder of rejected messages. Each hour of accepted events has a folder `hour=yyyyMMddHH`."""


LANDING_FORMAT = "%Y%m%d%H"
"""The hour in the name of a landing folder, as `2026112210`."""


def landing_hour(name: str) -> datetime:
    """The hour that a landing folder's name gives, such as `2026112210`."""
    return datetime.strptime(name, LANDING_FORMAT).replace(tzinfo=UTC)
