"""Rejected messages judged again by the stream's rules, and the accepted ones landed.

Which messages are replayed is decided in `replay.py`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from antenna_assets.domain.hours import EPOCH, MICROSECOND
from antenna_assets.domain.landing import LANDING_FORMAT
from antenna_assets.domain.schema import LANDED_SCHEMA
from antenna_assets.ledger.batch import BatchContent
from antenna_assets.settings import Settings
from antenna_assets.storage.attempt import lake_errors
from antenna_assets.storage.paths import lake_path
from antenna_assets.streaming.embedded_sums import embedded_sums
from antenna_assets.streaming.read_back import WrittenAttempt, read_back
from antenna_assets.streaming.verdicts.rules import Bounds, Rejection, judge

VALIDATED = pa.schema(
    [*LANDED_SCHEMA, *(pa.field(name, pa.string()) for name in ("reason", "detail", "hour"))]
)
"""A message as the stream sees it: the event (undefined if rejected), `reason` (null: accepted), `detail`,
and `hour`, the name of its landing folder (null if rejected)."""


def validate(settings: Settings, messages: pa.Table, clock: datetime) -> pa.Table:
    """Judge the messages by the stream's rules at `clock`; returns a row of `VALIDATED` for each, in their
    order."""
    bounds = Bounds(clock, settings.start)
    rows = [
        {"kafka_partition": partition, "kafka_offset": offset, **_verdict(value, bounds)}
        for value, partition, offset in zip(
            *(messages[name].to_pylist() for name in ("value", "kafka_partition", "kafka_offset")),
            strict=True,
        )
    ]
    return pa.Table.from_pylist(rows, pa.schema([field.with_nullable(True) for field in VALIDATED]))


def _verdict(value: bytes | None, bounds: Bounds) -> dict[str, Any]:
    found = judge(value, bounds)
    if isinstance(found, Rejection):
        return {"reason": found.reason, "detail": found.detail}
    time = EPOCH + found.micros * MICROSECOND
    event = {name: getattr(found, name) for name in ("app", "id", "antenna_id", "bytes")}
    return {"timestamp": time, **event, "hour": time.strftime(LANDING_FORMAT)}


def land(
    settings: Settings, accepted: pa.Table, live: Mapping[str, timedelta], *, folder: str
) -> BatchContent:
    """Write accepted rows of `VALIDATED` below `folder`, one file an hour, and read them back as the stream
    does.

    Args:
        live: the live tables to sum up for, each with the length of its windows.
    """
    begun = datetime.now(UTC)
    with lake_errors(settings.lake_uri):
        for hour in pc.unique(accepted["hour"]).to_pylist():
            target = lake_path(settings.lake_uri) / folder / f"hour={hour}" / "part-0.parquet"
            if isinstance(target, Path):
                target.parent.mkdir(parents=True)
            rows = (
                accepted.filter(pc.equal(accepted["hour"], hour))
                .select(LANDED_SCHEMA.names)
                .cast(LANDED_SCHEMA)
            )
            with target.open("wb") as file:
                pq.write_table(rows, file, compression="zstd")
    with embedded_sums(settings) as engine:
        written = WrittenAttempt(folder, begun, accepted.num_rows)
        return read_back(written, engine, lake=settings.lake_uri, live=live)
