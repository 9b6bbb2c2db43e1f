"""Fill the environment's Dagster instance with materializations: `history_instance URL NEWEST HOURS`."""

import sys
from datetime import datetime

import dagster as dg

from benchmarks.history_data import fill_instance


def main() -> None:
    """Run as its own process, since an instance reads the environment."""
    url, newest, hours = sys.argv[1:]
    with dg.DagsterInstance.get() as instance:
        fill_instance(instance, url, datetime.fromisoformat(newest), int(hours))


if __name__ == "__main__":
    main()
