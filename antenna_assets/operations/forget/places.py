"""The places where a user's id is kept, in PostgreSQL and the lake, and tables that show them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.domain.listing import first_few
from antenna_assets.ledger.lake_identity import require_matching_lake
from antenna_assets.ledger.old_previews import require_cleaned
from antenna_assets.operations.forget import tables
from antenna_assets.operations.forget.identity import require_identity
from antenna_assets.operations.forget.lake_search import LakeSearch, Unjudged, files_after, is_rejected
from antenna_assets.operations.forget.replace_text import Search
from antenna_assets.publishing.lake import Lake

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Places:
    """Number of rows with the id, by column of PostgreSQL and by file of the lake.

    Attributes:
        unjudged: rejected messages that may hold the id.
    """

    columns: dict[str, int]
    files: dict[str, int]
    unjudged: list[Unjudged] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.columns or self.files)

    def __str__(self) -> str:
        return first_few([*self.columns, *self.files], 5, what="place")


def places(connection: psycopg.Connection, lake: Lake, user: str) -> Places:
    """Search for the id everywhere.

    Raises:
        AntennaError: a file cannot be read, this is not the ledger's lake, or Dagster's events of older
            versions are not cleaned.
    """
    require_identity(user)
    require_matching_lake(connection, lake.root)
    search = Search(user, "", is_a_name=tables.is_a_name(connection, user))
    return find(connection, LakeSearch(lake, user, search), user, search)


def find(connection: psycopg.Connection, lake_search: LakeSearch, user: str, search: Search) -> Places:
    """The same with a search of the lake that has read some of its files before.

    Raises:
        OldPreviewsLeft: an older version published meanwhile, and may have shown the user in Dagster.
    """
    require_cleaned(connection)
    columns = tables.rows_with(connection, user)
    if transforms := len(tables.transforms_with(connection, search)):
        columns["ledger.replay.transform"] = transforms
    found = lake_search.everywhere(connection)
    rejected = [path for path in files_after(connection, 0) if is_rejected(path)]
    return Places(columns, found, lake_search.unjudged(rejected))


def places_table(found: Places) -> "Table":
    """Return a table of the places: columns, and folders of the lake."""
    from antenna_assets.domain.fitting_table import FittingTable, number_columns

    table = FittingTable("place", *number_columns("files", "rows"))
    for column, rows in found.columns.items():
        table.add_row(column, "", f"{rows:,}")
    for folder in sorted({path.split("/")[0] for path in found.files}):
        rows_of = [rows for path, rows in found.files.items() if path.split("/")[0] == folder]
        table.add_row(f"lake, {folder}", f"{len(rows_of):,}", f"{sum(rows_of):,}")
    return table


def unjudged_table(unjudged: list[Unjudged]) -> "Table":
    """Return a table of messages that cannot be judged, by reason, with the coordinates of the first of
    each."""
    from antenna_assets.domain.fitting_table import FittingTable, number_columns

    names = number_columns("messages", "partition of the first", "offset of the first")
    table = FittingTable(
        "rejected for",
        "cannot be judged, for it is",
        *names,
        title="Rejected messages that may name the user",
    )
    groups: dict[tuple[str, str], list[Unjudged]] = {}
    for message in unjudged:
        groups.setdefault((message.reason, message.unclear), []).append(message)
    for (reason, unclear), messages in sorted(groups.items()):
        first = min(messages, key=lambda message: (message.partition, message.offset))
        table.add_row(reason, unclear, f"{len(messages):,}", str(first.partition), str(first.offset))
    return table
