"""Time the sensor's query, and whole ticks of the sensors on the real instance, in one process."""

import json
import statistics
import sys
import time
from collections.abc import Callable

import dagster as dg

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import definitions
from antenna_assets.defs.local_runs import tick
from antenna_assets.defs.partitions import first_and_end
from antenna_assets.defs.period_sensor import ended_periods
from antenna_assets.defs.sensor_policy import HOURS_PER_RUN
from antenna_assets.ledger.hours_to_publish import candidates, newest_closed_hour
from antenna_assets.settings import load_settings


def main() -> None:
    """`sensor_ticks QUERIES TICKS`."""
    queries, ticks = map(int, sys.argv[1:])
    url = load_settings().postgres_url or ""
    query = [_query_seconds(url) for _ in range(queries)]
    with dg.DagsterInstance.get() as instance:
        asked = len(tick(definitions, instance))
        whole = _seconds(ticks, lambda: tick(definitions, instance))
        days = _seconds(ticks, lambda: tick(definitions, instance, ended_periods))
    print(
        json.dumps(
            {
                "query median": statistics.median(query),
                "query p99": sorted(query)[int(len(query) * 0.99)],
                "tick median": statistics.median(whole),
                "tick longest": max(whole),
                "tick of days, median": statistics.median(days),
                "tick of days, longest": max(days),
                "runs asked for": asked,
            }
        )
    )


def _query_seconds(url: str) -> float:
    """Time the query on a connection of its own, as a tick asks it: for one that repeats it, PostgreSQL would
    make a plan without looking at the values."""
    with connect(url) as connection:
        first, end = first_and_end()
        newest, now = newest_closed_hour(connection, first=first, end=end), database_now(connection)
        began = time.perf_counter()
        candidates(connection, first=first, end=end, newest=newest, now=now, limit=HOURS_PER_RUN)
        return time.perf_counter() - began


def _seconds(times: int, work: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found


if __name__ == "__main__":
    main()
