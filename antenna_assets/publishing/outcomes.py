"""What becomes of hours that are published together: published, superseded or failed, each on its own."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import psycopg
import pyarrow as pa

from antenna_assets.engines.contract import Engine
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.publishing.lake import Lake

MOST_ROWS = 5_000_000
"""Rows of hours that are published together, unless one hour has more: what a dead run has to repeat."""


@dataclass(frozen=True)
class PublishingRun:
    """What a run publishes with.

    Attributes:
        connection: in autocommit mode, opened before anything is read.
    """

    connection: psycopg.Connection
    tables: Lake
    engine: Engine
    run_id: str


@dataclass(frozen=True)
class HourReport:
    """An hour that an asset has published.

    Attributes:
        numbers: rows, bytes, generation and others, by name.
        files: of a lake table.
        top: of a serving table, the rows with the most bytes.
    """

    numbers: Mapping[str, int]
    files: Sequence[str] = ()
    top: pa.Table | None = None


@dataclass
class Outcomes:
    """What became of the hours of one asset.

    Attributes:
        superseded: hours of which a newer version is published already; nothing was changed.
        failures: hours that could not be published; the others were.
        seconds: how long each stage took, for all hours together.
    """

    published: dict[datetime, HourReport] = field(default_factory=dict)
    superseded: dict[datetime, Superseded] = field(default_factory=dict)
    failures: dict[datetime, AntennaError] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, hour: datetime) -> Iterator[None]:
        """Keep the failure of an hour, so that the others go on."""
        try:
            yield
        except AntennaError as error:
            self.failures[hour] = error

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def rows_of(connection: psycopg.Connection, hours: Sequence[datetime]) -> dict[datetime, int]:
    """The landed rows of each of some hours, in their order; 0 of one that the ledger does not know."""
    found = connection.execute("SELECT hour, rows FROM ledger.hour WHERE hour = ANY(%s)", [list(hours)])
    rows: dict[datetime, int] = dict(found.fetchall())
    return {hour: rows.get(hour, 0) for hour in hours}


def pieces(rows: Mapping[datetime, int]) -> Iterator[list[datetime]]:
    """Parts of some hours, given with their rows: each at most `MOST_ROWS` rows, or one hour with more."""
    piece: list[datetime] = []
    for hour in rows:
        if piece and sum(rows[one] for one in (*piece, hour)) > MOST_ROWS:
            yield piece
            piece = []
        piece.append(hour)
    if piece:
        yield piece
