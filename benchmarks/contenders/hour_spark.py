"""Plain PySpark: one script for one hour, as such jobs are usually written."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from antenna_assets.engines.spark_session import use_java
from benchmarks.contenders.hour_result import arguments, report


def main() -> None:
    """Two writes, four aggregations collected to the driver."""
    landed, users, output = arguments()
    use_java()
    spark = (
        SparkSession.builder.master("local[*]")
        .appName("hour")
        .config("spark.driver.memory", "4g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    spark.read.parquet(*landed).write.parquet(f"{output}/raw")
    raw = spark.read.parquet(f"{output}/raw")
    raw.join(spark.read.parquet(users), "id", "left").write.parquet(f"{output}/enriched")
    usage = spark.read.parquet(f"{output}/enriched")
    total = F.sum("bytes").alias("total")

    def rows_and_bytes(table: DataFrame) -> tuple[int, int]:
        rows = table.collect()
        return len(rows), sum(row["total"] for row in rows)

    sums = {
        "antenna": rows_and_bytes(usage.groupBy("antenna_id").agg(total)),
        "user": rows_and_bytes(usage.groupBy("id").agg(F.max("email"), total)),
        "app": rows_and_bytes(usage.groupBy("app").agg(total)),
    }
    over = rows_and_bytes(
        usage.where("quota IS NOT NULL")
        .groupBy("id")
        .agg(F.max("email"), F.max("quota").alias("quota"), total)
        .where("total > quota")
    )
    report(raw_rows=raw.count(), enriched_rows=usage.count(), sums=sums, over=over)
    spark.stop()


if __name__ == "__main__":
    main()
