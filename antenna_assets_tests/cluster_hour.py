"""An hour through the Spark engine on any master, in a process of its own: a process can have one Spark only.

`python -m antenna_assets_tests.cluster_hour MASTER LANDED USERS FOLDER` writes the four serving tables as parquet below the
folder and prints the number of Java processes that ran tasks.
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq

from antenna_assets.engines.spark import SparkEngine
from antenna_assets.spark_session import session
from antenna_assets_tests.test_engines_equal import through


def main() -> None:
    """Run the hour."""
    master, landed, users, folder = sys.argv[1:]
    spark = session("an hour on a cluster", master=master, extra={})
    engine = SparkEngine(lambda: spark)
    _, _, tables = through(engine, [landed], users, Path(folder))
    for name, table in tables.items():
        pq.write_table(table, Path(folder) / f"{name}.parquet")
    executors = spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
    # The driver is in the list, too.
    sys.stdout.write(f"{len(executors) - 1}\n")
    spark.stop()


if __name__ == "__main__":
    main()
