"""Publishing hours of a serving table: computed from `enriched_usage`, and replaced in PostgreSQL."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.schema import ENRICHED_USAGE, ServingTable
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.transforms import transform
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.ledger.certificate import UNKNOWN_USERS
from antenna_assets.ledger.generations import Generation, find_generations, generation_of
from antenna_assets.ledger.publications import Publication
from antenna_assets.publishing.lake import USERS_VERSION, generations
from antenna_assets.publishing.outcomes import HourReport, Outcomes, PublishingRun
from antenna_assets.publishing.serving import HourOfTable, replace_hours

TOP = 10
"""Rows with the most bytes that a report has."""

SELECTIONS = ("users_over_quota_1h",)
"""Tables with some rows of an hour only: their bytes are not the hour's."""


def publish_table(run: PublishingRun, table: ServingTable, hours: Sequence[datetime]) -> Outcomes:
    """Publish hours of a table at the generations that `enriched_usage` has of them.

    Raises:
        ForgottenMeanwhile: a user was forgotten since the connection was opened. Nothing was changed.
    """
    outcomes = Outcomes()
    usage = run.tables.hours("enriched_usage", hours)
    sealed = find_generations(run.connection, generations(usage))
    ready: list[HourOfTable] = []
    busiest: dict[datetime, _Busiest] = {}
    with run.tables.scratch() as scratch, ExitStack() as streams:
        with outcomes.stage("transform"):
            for hour in hours:
                with outcomes.of(hour):
                    published = usage[hour].published("enriched_usage", hour)
                    generation = generation_of(sealed, hour, published.generation)
                    inputs = {"enriched_usage": Dataset(published.files, ENRICHED_USAGE)}
                    rows = streams.enter_context(
                        run.engine.stream(
                            _ordered(table), inputs, table.columns, f"{scratch}/{hour_key(hour)}"
                        )
                    )
                    busiest[hour] = _Busiest(table, rows)
                    users_version = published.tags[USERS_VERSION]
                    ready.append(_hour(run, table, generation, users_version, busiest[hour]))
        with outcomes.stage("publish"):
            done = replace_hours(run.connection, table, ready)
    for hour, one in done.items():
        if isinstance(one, Superseded):
            outcomes.superseded[hour] = one
        elif isinstance(one, AntennaError):
            outcomes.failures[hour] = one
        else:
            outcomes.published[hour] = _report(one, busiest[hour])
    return outcomes


def _ordered(table: ServingTable) -> str:
    """The rows of an hour in the order of the key's bytes, in which they are digested."""
    return f"SELECT * FROM (\n{transform(table.name)}\n) AS rows ORDER BY {table.key}"  # noqa: S608


def _hour(
    run: PublishingRun,
    table: ServingTable,
    generation: Generation,
    users_version: int,
    rows: Iterable[pa.RecordBatch],
) -> HourOfTable:
    hour, number = generation.hour, generation.generation
    version = Publication(table.name, hour, number, 0, 0, users_version, run.run_id)
    return HourOfTable(version, rows, None if table.name in SELECTIONS else generation.bytes)


def _report(published: Publication, busiest: "_Busiest") -> HourReport:
    numbers = {
        "rows": published.rows,
        "bytes": published.bytes,
        "generation": published.generation,
        "users_version": published.users_version or 0,
    }
    unknown = (published.content or {}).get(UNKNOWN_USERS)
    if unknown is not None:
        numbers["unknown_users"] = unknown["users"]
    return HourReport(numbers, top=busiest.top)


class _Busiest:
    """Batches on their way to PostgreSQL; `top` has the `TOP` rows with the most bytes."""

    def __init__(self, table: ServingTable, rows: Iterable[pa.RecordBatch]) -> None:
        self._order = [(table.sum_column, "descending"), (table.key, "ascending")]
        self._rows = rows
        self.top = table.columns.empty_table()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._rows:
            best = pc.select_k_unstable(batch, k=min(TOP, batch.num_rows), sort_keys=self._order)
            both = pa.concat_tables([self.top, pa.table(batch.take(best))])
            self.top = both.take(pc.select_k_unstable(both, k=min(TOP, both.num_rows), sort_keys=self._order))
            yield batch
