"""Claims on hours of serving tables: what they cost."""

from datetime import UTC, datetime

import psycopg
import pytest

from antenna_assets.domain.hours import HOUR
from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.ledger.user_hours import make_user_days
from antenna_assets.verify.claims.tables import facts_of

pytestmark = pytest.mark.services

FIRST = datetime(2026, 11, 22, tzinfo=UTC)


def test_the_rows_of_many_hours_are_read_once_and_not_compared_with_each_hour(
    connection: psycopg.Connection,
) -> None:
    hours = [FIRST + number * HOUR for number in range(24)]
    make_user_days(connection, hours)
    connection.execute(
        "INSERT INTO bytes_agg_user_1h"
        " SELECT hour, 'user-' || number, CASE WHEN number > 1 THEN 'known' END, number"
        " FROM unnest(%s::timestamptz[]) AS hour, generate_series(1, 300) AS number",
        [hours],
    )
    facts = facts_of(HOURLY_TABLES["bytes_agg_user_1h"])
    asked = {"hours": [*hours[1:], hours[-1] + HOUR], "first": hours[1], "end": hours[-1] + 2 * HOUR}
    found = sorted(connection.execute(facts, asked).fetchall())
    assert found[0] == (hours[1], 300, 45150, 0, 300, 45149)
    assert found[-1] == (hours[-1] + HOUR, 0, 0, 0, 0, 0)
    explained = connection.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + facts.as_bytes(connection), asked)
    assert compared(explained.fetchall()[0][0][0]["Plan"]) == 0


def compared(node: dict) -> float:
    """The pairs of rows that joins of a plan have compared in vain."""
    removed = node["Actual Loops"] * node.get("Rows Removed by Join Filter", 0)
    return removed + sum(map(compared, node.get("Plans", [])))
