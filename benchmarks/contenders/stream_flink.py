"""Flink SQL: one statement set, a parquet sink, three tumbling windows into a blackhole, checkpoints every 10
s.

Runs in its own environment, since Flink pins packages.
"""

import json

from pyflink.table import EnvironmentSettings, TableEnvironment

from benchmarks.contenders.stream_arguments import arguments

SOURCE = """CREATE TABLE devices (
    `timestamp` DOUBLE, id STRING, antenna_id STRING, app STRING, `bytes` BIGINT,
    event_time AS TO_TIMESTAMP_LTZ(CAST(`timestamp` * 1000 AS BIGINT), 3),
    WATERMARK FOR event_time AS event_time - INTERVAL '1' MINUTE
) WITH (
    'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{bootstrap}',
    'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset',
    'format' = 'json', 'json.ignore-parse-errors' = 'true'
)"""

LAKE = """CREATE TABLE lake (
    event_time TIMESTAMP_LTZ(3), id STRING, antenna_id STRING, app STRING, `bytes` BIGINT, `hour` STRING
) PARTITIONED BY (`hour`)
WITH ('connector' = 'filesystem', 'path' = 'file://{output}/lake', 'format' = 'parquet')"""

LAND = """INSERT INTO lake
    SELECT event_time, id, antenna_id, app, `bytes`, DATE_FORMAT(event_time, 'yyyyMMddHH') FROM devices"""

SUMS = """CREATE TABLE sums_{key} (window_start TIMESTAMP(3), name STRING, total BIGINT)
    WITH ('connector' = 'blackhole')"""

SUM = """INSERT INTO sums_{key} SELECT window_start, {key}, SUM(`bytes`)
    FROM TABLE(TUMBLE(TABLE devices, DESCRIPTOR(event_time), INTERVAL '5' MINUTES))
    GROUP BY window_start, window_end, {key}"""


def main() -> None:
    """Read the topic to its present end."""
    given = arguments()
    table = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for name, value in {
        "pipeline.jars": ";".join(f"file://{jar}" for jar in given.jars.split(",")),
        "parallelism.default": "2",
        "execution.checkpointing.interval": "10 s",
        # The default, checkpoints in memory, is limited to 5 MB: 20,000 users in a few windows need more.
        "execution.checkpointing.storage": "filesystem",
        "execution.checkpointing.dir": f"file://{given.output}/checkpoints",
        # Otherwise a failing job restarts forever.
        "restart-strategy.type": "none",
        "table.local-time-zone": "UTC",
        "pipeline.object-reuse": "true",
        # Records are buffered per key before state is accessed: the first advice of Flink's tuning guide.
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": "1 s",
        "table.exec.mini-batch.size": "5000",
    }.items():
        table.get_config().set(name, value)
    table.execute_sql(SOURCE.format(topic=given.topic, bootstrap=given.bootstrap))
    table.execute_sql(LAKE.format(output=given.output))
    statements = table.create_statement_set()
    statements.add_insert_sql(LAND)
    for key in ("antenna_id", "id", "app"):
        table.execute_sql(SUMS.format(key=key))
        statements.add_insert_sql(SUM.format(key=key))
    statements.execute().wait()
    print(json.dumps({}))


if __name__ == "__main__":
    main()
