"""What "nothing is lost" means: the messages that the broker holds against the rows in the files that the ledger names.

Both sides are read anew and share no code with the pipeline.
"""

from pathlib import Path

import psycopg

from antenna_assets.settings import Settings
from antenna_assets.simulator.answers_file import read_answers
from antenna_assets.simulator.compare import differences
from antenna_assets.simulator.rejected import counts_by_reason
from antenna_assets.storage.parquet_file import read_table
from antenna_assets.storage.paths import lake_path

Coordinates = list[tuple[int, int]]
"""Partition and offset of each message, ascending."""


def held_by_the_broker(settings: Settings) -> Coordinates:
    """The coordinates of every message of the topic."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {"bootstrap.servers": settings.kafka_bootstrap, "group.id": "exactness", "enable.auto.commit": False}
    )
    try:
        partitions = consumer.list_topics(settings.topic, timeout=10).topics[settings.topic].partitions
        places = [TopicPartition(settings.topic, number, OFFSET_BEGINNING) for number in partitions]
        ends = {place.partition: consumer.get_watermark_offsets(place, timeout=10) for place in places}
        left = sum(end - first for first, end in ends.values())
        consumer.assign(places)
        found: Coordinates = []
        while len(found) < left:
            messages = consumer.consume(min(10_000, left - len(found)), timeout=10)
            assert messages, f"the broker gave {len(found)} of {left} messages"
            for message in messages:
                assert message.error() is None
                found.append((message.partition(), message.offset()))
    finally:
        consumer.close()
    return sorted(found)


def named_by_the_ledger(settings: Settings) -> Coordinates:
    """The coordinates of every row in the files that the ledger names; each file holds the rows it should."""
    with psycopg.connect(settings.postgres_url or "") as connection:
        files = connection.execute("SELECT path, rows FROM ledger.file").fetchall()
    found: Coordinates = []
    for path, rows in files:
        table = read_table(lake_path(settings.lake_uri) / path, ["kafka_partition", "kafka_offset"])
        assert table.num_rows == rows, path
        found += zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True)
    return sorted(found)


def committed_by_the_ledger(settings: Settings) -> Coordinates:
    """The coordinates within the ledger's offset ranges, which follow each other without gap or overlap."""
    with psycopg.connect(settings.postgres_url or "") as connection:
        ranges = connection.execute(
            "SELECT topic_id, partition, from_offset, until_offset FROM ledger.batch_offset ORDER BY 1, 2, 3"
        ).fetchall()
        batches = connection.execute("SELECT batch FROM ledger.batch ORDER BY batch").fetchall()
        assert batches == [(number + 1,) for number in range(len(batches))]
    assert len({topic_id for topic_id, *_ in ranges}) <= 1
    ends: dict[int, int] = {}
    for _, partition, first, end in ranges:
        assert ends.get(partition, first) == first, f"partition {partition}: a gap or an overlap at {first}"
        ends[partition] = end
    return sorted((p, offset) for _, p, first, end in ranges for offset in range(first, end))


def assert_whole(settings: Settings) -> int:
    """Whatever was committed so far is complete; returns the number of messages."""
    committed = committed_by_the_ledger(settings)
    assert named_by_the_ledger(settings) == committed
    return len(committed)


def assert_exact(settings: Settings, answers: Path | None = None, *, published: bool = False) -> None:
    """Every message of the broker is filed once, and the tables equal the answers.

    Args:
        published: compare the hourly tables as well as the live ones.
    """
    held = held_by_the_broker(settings)
    assert held, "expected messages in the topic, found none"
    assert named_by_the_ledger(settings) == committed_by_the_ledger(settings) == held
    if answers is None:
        return
    url = settings.postgres_url or ""
    rejected_in = counts_by_reason(url, settings.lake_uri)
    found = differences(read_answers(answers), url, rejected_in=rejected_in, live=settings.live_windows)
    if not published:
        live = ("bytes_agg_antenna", "bytes_agg_user", "bytes_agg_app", "rejected")
        found = [difference for difference in found if difference.table in live]
    assert [str(difference) for difference in found] == []
