"""Replays without Spark: everything is real but the parser, for which the oracle stands in."""

from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from antenna_assets.operations.quarantine import replay
from antenna_assets.operations.quarantine.reparse import VALIDATED
from antenna_assets.settings import Settings
from antenna_assets_tests.parse_oracle import EPOCH, Accepted, verdict


def without_spark(patch: pytest.MonkeyPatch) -> None:
    """Let the oracle parse for `quarantine.replay`."""
    patch.setattr(replay, "validate", _validate)


def no_session() -> AbstractContextManager[Any]:
    """In the place of a Spark session."""
    return nullcontext()


def _validate(settings: Settings, _spark: object, messages: pa.Table, clock: datetime) -> pa.Table:
    schema = pa.schema([field.with_nullable(True) for field in VALIDATED])
    rows = []
    for row in messages.to_pylist():
        found = verdict(row["value"], clock, settings.start)
        coordinates = {name: row[name] for name in ("kafka_partition", "kafka_offset")}
        if isinstance(found, Accepted):
            time = EPOCH + timedelta(microseconds=found.micros)
            event = {name: getattr(found, name) for name in ("app", "id", "antenna_id", "bytes")}
            rows.append({**coordinates, **event, "timestamp": time, "hour": f"{time:%Y%m%d%H}"})
        else:
            rows.append({**coordinates, "reason": found.reason})
    return pa.Table.from_pylist(rows, schema)
