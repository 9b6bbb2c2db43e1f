"""An hour through the Spark engine on any master or server, in a process of its own: a process can have one Spark only.

`python -m antenna_assets_tests.cluster_hour MASTER LANDED USERS FOLDER` writes the four serving tables as parquet below the
folder. On a master it prints the number of Java processes that ran tasks, on a server of Spark Connect (`sc://...`) its host.
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from antenna_assets.defs.resources import EngineResource
from antenna_assets.engines.spark_session import configuration
from antenna_assets_tests.test_engines_equal import through


def main() -> None:
    """Run the hour."""
    master, landed, users, folder = sys.argv[1:]
    remote = master.startswith("sc://")
    config = {"spark.remote": master} if remote else {"spark.master": master, **configuration(master)}
    engine = EngineResource(name="spark", spark_config=config).start()
    _, _, tables = through(engine, [landed], users, Path(folder))
    for name, table in tables.items():
        pq.write_table(table, Path(folder) / f"{name}.parquet")
    if remote:
        from pyspark.sql.connect.session import SparkSession as RemoteSession

        sys.stdout.write(f"{RemoteSession.active().client.host}\n")
        return
    spark = SparkSession.active()
    executors = spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
    # The driver is in the list, too.
    sys.stdout.write(f"{len(executors) - 1}\n")
    spark.stop()


if __name__ == "__main__":
    main()
