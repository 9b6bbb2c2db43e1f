"""The usual Spark shape of such a system: four queries of one topic, a parquet sink and three windowed sums.

As in Spark's structured streaming guide: `from_json`, a watermark, windows in append mode. The three sums are
written to `noop`, where the original appends them to PostgreSQL over JDBC: this contender is spared that
work.
"""

import json
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from antenna_assets.engines.spark_session import use_java
from benchmarks.contenders.stream_arguments import arguments

SCHEMA = "timestamp DOUBLE, id STRING, antenna_id STRING, app STRING, bytes BIGINT"


def main() -> None:
    """Read the topic to its end with all four queries."""
    given = arguments()
    use_java()
    spark = (
        SparkSession.builder.master("local[*]")
        .appName("usual shape")
        .config("spark.jars", given.jars)
        .config("spark.driver.memory", "4g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    events = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", given.bootstrap)
        .option("subscribe", given.topic)
        .option("startingOffsets", "earliest")
        .load()
        .select(F.from_json(F.col("value").cast("string"), SCHEMA).alias("event"))
        .select("event.*")
        .withColumn("timestamp", F.col("timestamp").cast("timestamp"))
    )
    parquet = events.select(
        "*",
        F.year("timestamp").alias("year"),
        F.month("timestamp").alias("month"),
        F.dayofmonth("timestamp").alias("day"),
        F.hour("timestamp").alias("hour"),
    )
    queries = [
        parquet.writeStream.format("parquet")
        .partitionBy("year", "month", "day", "hour")
        .option("path", f"{given.output}/lake")
        .option("checkpointLocation", f"{given.output}/checkpoints/lake")
        .trigger(availableNow=True)
        .start()
    ]
    watched = events.withWatermark("timestamp", "1 minute")
    for key in ("antenna_id", "id", "app"):
        sums = watched.groupBy(F.window("timestamp", "5 minutes"), key).agg(F.sum("bytes"))
        queries.append(
            sums.writeStream.format("noop")
            .outputMode("append")
            .option("checkpointLocation", f"{given.output}/checkpoints/{key}")
            .trigger(availableNow=True)
            .start()
        )
    for query in queries:
        query.awaitTermination()
    rows = spark.read.parquet(f"{given.output}/lake").count()
    spark.stop()
    files = len(list(Path(given.output, "lake").rglob("*.parquet")))
    print(json.dumps({"rows": rows, "files": files}))


if __name__ == "__main__":
    main()
