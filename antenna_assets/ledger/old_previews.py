"""Whether Dagster still holds events of older versions that name users.

A publication of an older version may be shown in Dagster with users. `defs/old_previews.py` cleans those
events.
"""

from dataclasses import dataclass

import psycopg

from antenna_assets.errors import AntennaError


class OldPreviewsLeft(AntennaError):
    """Dagster's events of older versions may name users."""


@dataclass(frozen=True)
class Cleaning:
    """How far Dagster's events are cleaned of users.

    Attributes:
        newest: the newest publication that may be shown with users; 0 if there is none.
        cleaned_to: no event of a publication up to this number names a user.
        cleaning_to: the publication up to which a cleaning is in progress, or was interrupted.
        event: the last of Dagster's events that this cleaning has cleaned.
        unfinished_runs: runs of older versions that were in progress when Dagster was last started.
        attempted: whether Dagster has looked at all.
    """

    newest: int
    cleaned_to: int
    cleaning_to: int | None
    event: int
    unfinished_runs: int
    attempted: bool

    @property
    def is_due(self) -> bool:
        """Whether events may name users."""
        return self.newest > self.cleaned_to


def read_cleaning(connection: psycopg.Connection) -> Cleaning:
    """Return how far Dagster's events are cleaned, by one query of an index."""
    return Cleaning(
        *connection.execute(
            "SELECT coalesce(newest, 0), coalesce(cleaned_to, 0), cleaning_to, coalesce(event, 0),"
            " coalesce(unfinished_runs, 0), cleaned_to IS NOT NULL"
            " FROM (SELECT max(number) AS newest FROM ledger.publication WHERE shown_with_users) AS shown"
            " LEFT JOIN ledger.old_previews ON true"
        ).fetchall()[0]
    )


def require_cleaned(connection: psycopg.Connection) -> None:
    """Require that no event in Dagster's tables names a user, without reading those events.

    Raises:
        OldPreviewsLeft: they are not cleaned yet; the message says why and what to do.
    """
    cleaning = read_cleaning(connection)
    if not cleaning.is_due or not _dagster_has_events(connection):
        return
    if cleaning.unfinished_runs:
        found = f"{cleaning.unfinished_runs:,} unfinished runs of the older version at Dagster's last start"
        fix = "let them end, or terminate them, and restart Dagster's daemon"
    elif cleaning.cleaning_to is not None:
        found = f"a cleaning that has come to event {cleaning.event:,}"
        fix = "wait until Dagster has started; if that was interrupted, restart Dagster's daemon"
    elif cleaning.attempted:
        found = "an older version that has published since Dagster's last start"
        fix = "upgrade every process of Dagster, and restart its daemon"
    else:
        found = "no start of Dagster since the upgrade by a login with the rights of antenna_publisher"
        fix = "start Dagster's daemon"
    raise OldPreviewsLeft(
        f"expected that what older versions showed in Dagster is cleaned of users, found {found}; {fix}"
    )


def _dagster_has_events(connection: psycopg.Connection) -> bool:
    # By the catalogue, which a login without rights in the schema may read as well.
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE nspname = 'dagster' AND relname = 'event_logs')"
    ).fetchone()
    return row == (True,)
