"""Materializing the hours of a run, and an hour's report to Dagster: numbers, previews, certificate."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

import dagster as dg
import psycopg

from antenna_assets.defs.instance_storage import events_together
from antenna_assets.defs.partitions import hours_of
from antenna_assets.domain.hours import hour_key
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.anchors import anchor_of
from antenna_assets.ledger.certificate import Certificate, newest_certificate

Report = Mapping[str, int | float | dg.MetadataValue]


class Stages:
    """The durations of the stages of hours that are materialized together, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time of the block to `<name>_seconds`."""
        began = time.perf_counter()
        yield
        key = f"{name}_seconds"
        self.seconds[key] = round(self.seconds.get(key, 0.0) + time.perf_counter() - began, 3)


MOST_ROWS = 5_000_000
"""Rows of hours that are materialized together, unless one hour has more: what a dead run has to repeat."""


class HoursFailed(AntennaError):
    """Several hours of a run failed; the others are published."""


class Outcomes:
    """What became of hours that are materialized together."""

    def __init__(self) -> None:
        self.reports: dict[datetime, Report] = {}
        self.superseded: dict[datetime, Superseded] = {}
        self.failures: dict[datetime, AntennaError] = {}

    @contextmanager
    def of(self, hour: datetime) -> Iterator[None]:
        """Keep the failure of an hour, so that the others go on."""
        try:
            yield
        except AntennaError as error:
            self.failures[hour] = error


def materialize_hours(
    context: dg.AssetExecutionContext,
    connection: psycopg.Connection,
    materialize: Callable[[Sequence[datetime], Stages, Outcomes], None],
) -> dg.MaterializeResult:
    """Materialize the hours of the run, as many together as `MOST_ROWS` allows, and record them.

    An hour of which a newer version is published already is skipped. If some hours fail, the others are
    published and recorded all the same, and then the step fails.

    Args:
        materialize: fills in the outcome of each of the hours that it is given.

    Raises:
        AntennaError: the failure of the hour that failed.
        HoursFailed: several failed; the message has the first failure.
    """
    done: list[dg.AssetMaterialization] = []
    failures: dict[datetime, AntennaError] = {}
    try:
        for hours in pieces(connection, hours_of(context)):
            stages, outcomes = Stages(), Outcomes()
            materialize(hours, stages, outcomes)
            commit_point("publish.hours_done")
            failures |= outcomes.failures
            for superseded in outcomes.superseded.values():
                context.log.info(f"nothing to do: {superseded}")
            reports = {**outcomes.reports, **{hour: {"superseded": 1} for hour in outcomes.superseded}}
            for hour, report in sorted(reports.items()):
                shown = {**report, **stages.seconds, **_ledgers_view(context, connection, hour)}
                if "rows" in report:
                    shown["dagster/partition_row_count"] = report["rows"]
                numbers = {name: value for name, value in shown.items() if isinstance(value, int | float)}
                done.append(
                    dg.AssetMaterialization(context.asset_key, partition=hour_key(hour), metadata=numbers)
                )
                context.add_asset_metadata(shown, partition_key=hour_key(hour))
        _raise(failures)
    except BaseException:
        # Dagster records the hours of a run that succeeds, all at once, and none of one that fails.
        with events_together(context.instance):
            for materialization in done:
                context.log_event(materialization)
        raise
    return dg.MaterializeResult()


def pieces(connection: psycopg.Connection, hours: Sequence[datetime]) -> Iterator[list[datetime]]:
    """Parts of the hours with at most `MOST_ROWS` rows together, or one hour with more."""
    found = connection.execute("SELECT hour, rows FROM ledger.hour WHERE hour = ANY(%s)", [list(hours)])
    rows: dict[datetime, int] = dict(found.fetchall())
    piece: list[datetime] = []
    for hour in hours:
        if piece and sum(rows.get(one, 0) for one in (*piece, hour)) > MOST_ROWS:
            yield piece
            piece = []
        piece.append(hour)
    yield piece


def _raise(failures: Mapping[datetime, AntennaError]) -> None:
    if not failures:
        return
    first = next(iter(failures.values()))
    if len(failures) == 1:
        raise first
    named = ", ".join(map(hour_key, failures))
    raise HoursFailed(
        f"{len(failures)} hours failed, the others are published: {named}; first: {first}"
    ) from first


def _ledgers_view(
    context: dg.AssetExecutionContext, connection: psycopg.Connection, hour: datetime
) -> dict[str, dg.MetadataValue]:
    """The hour's newest certificate; one that this asset has issued is logged."""
    newest = newest_certificate(connection, hour)
    if newest is not None and _last_published(newest) == context.asset_key.to_user_string():
        # Where logs are kept elsewhere, this line anchors the hash outside the database.
        context.log.info(anchor_of(newest).line)
    return {"certificate": _certificate(newest, hour)}


def _last_published(certificate: Certificate) -> str:
    """The asset whose publication issued the certificate."""
    published = certificate.content["published"]
    return max(published, key=lambda asset: published[asset]["publication"])


def _certificate(found: Certificate | None, hour: datetime) -> dg.MetadataValue:
    """The hour's newest certificate, and the command that shows it."""
    command = f"`antenna certificate {hour_key(hour)}`"
    if found is None:
        return dg.MetadataValue.md(
            f"none yet: the last of the hour's six assets issues it; {command} will show it"
        )
    return dg.MetadataValue.md(
        f"number {found.number} of generation {found.generation}, SHA-256 `{found.sha256}`; {command} shows "
        "it"
    )
