"""Materializing the hours of a run, and an hour's report to Dagster: numbers, previews, certificate."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import dagster as dg
import psycopg

from antenna_assets.defs.partitions import hours_of
from antenna_assets.domain.hours import hour_key
from antenna_assets.errors import Superseded
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.anchors import anchor_of
from antenna_assets.ledger.certificate import Certificate, newest_certificate

Report = Mapping[str, int | float | dg.MetadataValue]


class Stages:
    """The durations of an hour's stages, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block, as `<name>_seconds`."""
        began = time.perf_counter()
        yield
        self.seconds[f"{name}_seconds"] = round(time.perf_counter() - began, 3)


def materialize_hours(
    context: dg.AssetExecutionContext,
    connection: psycopg.Connection,
    materialize: Callable[[datetime, Stages], Report],
) -> dg.MaterializeResult:
    """Materialize each hour of the run and record it, with its report, as soon as it is done.

    A run of several hours that is killed keeps the hours that it finished. An hour is skipped if a newer
    version of it is published already.
    """
    hours = hours_of(context)
    for hour in hours:
        key, stages = hour_key(hour), Stages()
        try:
            report = dict(materialize(hour, stages))
        except Superseded as superseded:
            context.log.info(f"nothing to do: {superseded}")
            report = {"superseded": 1}
        commit_point("publish.hour_done")
        if "rows" in report:
            report["dagster/partition_row_count"] = report["rows"]
        report |= stages.seconds
        newest = newest_certificate(connection, hour)
        if newest is not None and _last_published(newest) == context.asset_key.to_user_string():
            # Where logs are kept elsewhere, this line anchors the hash outside the database.
            context.log.info(anchor_of(newest).line)
        report["certificate"] = _certificate(newest, hour)
        if len(hours) > 1:
            numbers = {name: value for name, value in report.items() if isinstance(value, int | float)}
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=numbers))
        context.add_asset_metadata(report, partition_key=key)
    return dg.MaterializeResult()


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
