"""Writing judged messages as files: each hour's rows in its folder, for few hours and for many."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antenna_assets.domain.schema import LANDED_SCHEMA, REJECTED_SCHEMA
from antenna_assets.streaming.embedded.land import FEW_HOURS, Lander
from antenna_assets.streaming.verdicts.judged import ACCEPTED_SCHEMA

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)


def accepted(hours: int) -> pa.Table:
    """Two events in each hour, of 1 and of 2 bytes."""
    rows = [
        {
            "timestamp": TEN + timedelta(hours=hour, minutes=minute),
            "app": "it's",
            "id": "u",
            "antenna_id": "a",
            "bytes": minute,
            "kafka_partition": 0,
            "kafka_offset": 2 * hour + minute,
            "hour": (TEN + timedelta(hours=hour)).strftime("%Y%m%d%H"),
        }
        for hour in range(hours)
        for minute in (1, 2)
    ]
    return pa.Table.from_pylist(rows, schema=ACCEPTED_SCHEMA)


def landed(lake: Path) -> dict[str, list[tuple[datetime, int]]]:
    """The instants and bytes below each folder of the attempt."""
    found: dict[str, list[tuple[datetime, int]]] = {}
    for file in sorted(lake.glob("landing/1/*/*.parquet")):
        table = pq.ParquetFile(file).read()
        assert table.schema.names == LANDED_SCHEMA.names
        rows = zip(table["timestamp"].to_pylist(), table["bytes"].to_pylist(), strict=True)
        found.setdefault(file.parent.name, []).extend(rows)
    return found


@pytest.mark.parametrize("hours", [1, 2, FEW_HOURS, FEW_HOURS + 1, 100])
def test_each_hour_has_its_rows_in_its_folder(tmp_path: Path, hours: int) -> None:
    with Lander(str(tmp_path)) as lander:
        lander.write("landing/1", accepted(hours), REJECTED_SCHEMA.empty_table())
    assert landed(tmp_path) == {
        f"hour={TEN + timedelta(hours=hour):%Y%m%d%H}": [
            (TEN + timedelta(hours=hour, minutes=minute), minute) for minute in (1, 2)
        ]
        for hour in range(hours)
    }


def test_what_has_no_rows_has_no_file(tmp_path: Path) -> None:
    with Lander(str(tmp_path)) as lander:
        lander.write("landing/1", ACCEPTED_SCHEMA.empty_table(), REJECTED_SCHEMA.empty_table())
    assert list(tmp_path.glob("landing/1/**/*")) == []


def test_rejected_messages_are_one_file_with_their_reasons(tmp_path: Path) -> None:
    rejected = pa.Table.from_pylist(
        [
            {
                "value": b"\xff",
                "reason": "not_utf8",
                "detail": "1 bytes",
                "kafka_partition": 3,
                "kafka_offset": 7,
                "kafka_timestamp": TEN,
            }
        ],
        schema=REJECTED_SCHEMA,
    )
    with Lander(str(tmp_path)) as lander:
        lander.write("landing/1", ACCEPTED_SCHEMA.empty_table(), rejected)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.glob("landing/1/*/*")] == [
        "landing/1/rejected/part-0.parquet"
    ]
    found = pq.ParquetFile(tmp_path / "landing/1/rejected/part-0.parquet").read()
    assert found.to_pylist() == rejected.to_pylist()
