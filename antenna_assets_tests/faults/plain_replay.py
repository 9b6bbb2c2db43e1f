"""Replays without Spark: the real selection, transformation, plan and transaction; the oracle parses, PyArrow writes."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from antenna_assets.ledger.batch import BatchContent
from antenna_assets.operations.quarantine import replay
from antenna_assets.settings import Settings
from antenna_assets.streaming.read_back import WrittenAttempt
from antenna_assets_tests.faults.plain_stream import _write, summed_up
from antenna_assets_tests.parse_oracle import EPOCH, Accepted, verdict

MILLISECOND = timedelta(milliseconds=1)


def without_spark(patch: pytest.MonkeyPatch) -> None:
    """Let the oracle stand for Spark in `quarantine.replay`."""
    patch.setattr(replay, "verdicts_on", _verdicts_on)
    patch.setattr(replay, "land_messages", _land_messages)


@dataclass(frozen=True)
class _Message:
    """A rejected message as Kafka's client gives one."""

    row: dict

    def value(self) -> bytes | None:
        return self.row["value"]

    def partition(self) -> int:
        return self.row["kafka_partition"]

    def offset(self) -> int:
        return self.row["kafka_offset"]

    def timestamp(self) -> tuple[int, int]:
        return 0, (self.row["kafka_timestamp"] - EPOCH) // MILLISECOND


def _verdicts_on(settings: Settings, _spark: object, messages: pa.Table, clock: datetime) -> pa.Table:
    rows = []
    for number, row in enumerate(messages.to_pylist()):
        found = verdict(row["value"], clock, settings.start)
        accepted = isinstance(found, Accepted)
        time = EPOCH + timedelta(microseconds=found.micros) if accepted else None
        rows.append(
            {
                "number": number,
                "kafka_partition": row["kafka_partition"],
                "kafka_offset": row["kafka_offset"],
                "reason": None if accepted else found.reason,
                "detail": None,
                "hour": f"{time:%Y%m%d%H}" if time else None,
                "bytes": found.bytes if accepted else None,
            }
        )
    names = ("number", "kafka_partition", "kafka_offset", "reason", "detail", "hour", "bytes")
    return pa.table({name: [row[name] for row in rows] for name in names})


def _land_messages(
    settings: Settings, _spark: object, messages: pa.Table, *, folder: str, clock: datetime
) -> BatchContent:
    begun = datetime.now(UTC)
    _write(
        f"{settings.lake_uri}/{folder}",
        [_Message(row) for row in messages.to_pylist()],
        clock,
        settings.start,
    )
    return summed_up(settings, WrittenAttempt(folder, begun, messages.num_rows))
