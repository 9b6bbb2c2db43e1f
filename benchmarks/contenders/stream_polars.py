"""A `confluent-kafka` loop with Polars: fast, without guarantees. If killed, it loses or repeats messages."""

import json
from pathlib import Path

import polars as pl
from confluent_kafka import Consumer, TopicPartition

from benchmarks.contenders.stream_arguments import arguments

BATCH = 300_000
SCHEMA = pl.Struct(
    {"timestamp": pl.Float64, "id": pl.String, "antenna_id": pl.String, "app": pl.String, "bytes": pl.Int64}
)


def main() -> None:
    """Consume to the present end: each batch becomes one parquet file per hour, and three sums."""
    given = arguments()
    consumer = Consumer(
        {
            "bootstrap.servers": given.bootstrap,
            "group.id": "loop",
            "enable.auto.commit": False,
            "fetch.min.bytes": 1_000_000,
        }
    )
    topic = consumer.list_topics(given.topic).topics[given.topic]
    ends = {
        partition: consumer.get_watermark_offsets(TopicPartition(given.topic, partition))[1]
        for partition in topic.partitions
    }
    consumer.assign([TopicPartition(given.topic, partition, 0) for partition in ends])
    left = sum(ends.values())
    rows = files = 0
    sums: dict[str, list[pl.DataFrame]] = {"antenna_id": [], "id": [], "app": []}
    while left:
        values: list[str] = []
        while left and len(values) < BATCH:
            messages = consumer.consume(min(100_000, left), timeout=5)
            left -= len(messages)
            values.extend(message.value().decode() for message in messages)
        events = (
            pl.Series("value", values)
            .str.json_decode(SCHEMA)
            .struct.unnest()
            .with_columns(pl.from_epoch((pl.col("timestamp") * 1_000_000).cast(pl.Int64), "us").alias("time"))
            .with_columns(pl.col("time").dt.strftime("%Y%m%d%H").alias("hour"))
        )
        for (hour,), part in events.partition_by("hour", as_dict=True).items():
            folder = Path(given.output, f"hour={hour}")
            folder.mkdir(parents=True, exist_ok=True)
            part.write_parquet(folder / f"{files}.parquet")
            files += 1
        window = events.with_columns(pl.col("time").dt.truncate("5m").alias("date"))
        for key, parts in sums.items():
            parts.append(window.group_by("date", key).agg(pl.col("bytes").sum()))
        rows += events.height
    groups = sum(
        pl.concat(parts).group_by("date", key).agg(pl.col("bytes").sum()).height
        for key, parts in sums.items()
    )
    consumer.close()
    print(json.dumps({"rows": rows, "files": files, "live rows": groups}))


if __name__ == "__main__":
    main()
