"""`antenna status` shows literal rows of the ledger; on a narrow terminal no number is cut."""

from datetime import UTC, datetime, timedelta
from io import StringIO

import psycopg
import pytest
from rich.console import Console

from antenna_assets.operations.status import tables

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
BYTES, ROWS = 9_223_372_036_854_775_807, 26_168_123_456


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_number_is_cut_on_a_narrow_terminal(connection: psycopg.Connection, width: int) -> None:
    connection.execute("INSERT INTO ledger.head (topic, topic_id, batch) VALUES ('devices', 'id', 1)")
    connection.execute(
        "INSERT INTO ledger.batch (batch, kind, clock, rows, bytes, quarantined, late_rows)"
        " VALUES (1, 'stream', %s, %s, %s, %s, %s)",
        [TEN, ROWS, BYTES, ROWS, ROWS],
    )
    connection.execute(
        "INSERT INTO ledger.batch_offset (topic, topic_id, partition, from_offset, until_offset, batch)"
        " VALUES ('devices', 'id', 3, 0, %s, 1)",
        [BYTES],
    )
    connection.execute("INSERT INTO ledger.rejection VALUES (1, 'timestamp_in_future', %s)", [ROWS])
    connection.execute(
        "INSERT INTO ledger.hour (hour, rows, bytes, generation) VALUES (%s, %s, %s, 0), (%s, %s, %s, 0)",
        [TEN, ROWS, BYTES, TEN + timedelta(hours=1), ROWS + 1, BYTES - 1],
    )
    console = Console(width=width, file=StringIO(), emoji=False)
    for table in tables(connection, "devices", None, "not asked"):
        console.print(table)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count(f"{BYTES:,}") == 2  # The offset, and the hour's bytes.
    assert shown.count(f"{ROWS:,}") == 4  # Rows landed, late rows, the hour's rows and the quarantine.
    assert f"{BYTES - 1:,}" in shown
    assert f"{ROWS + 1:,}" in shown
    assert "2026-11-22-10:00" in shown
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
