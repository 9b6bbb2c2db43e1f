"""The plain stream in small batches, which merges after each of them as the stream's thread would beside it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from antenna_assets.clients.kafka_broker import Broker
from antenna_assets.clients.postgres import connect
from antenna_assets.ledger import merge
from antenna_assets.ledger.head import claim_topic
from antenna_assets.ledger.merge import files_waiting
from antenna_assets.settings import Settings, load_settings
from antenna_assets.streaming.merge_files import merge_some
from antenna_assets_tests.faults import plain_stream

MODULE = ("antenna_assets_tests.faults.merging_stream",)


@contextmanager
def few_files(files: int = 3, again: int = 2) -> Iterator[None]:
    """So many files that landed are enough to merge, and so many merged ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "FILES_PER_MERGE", (files, again, again))
        yield


def merge_everything(settings: Settings) -> int:
    """Merge whatever can be merged; how many merges there were."""
    count = 0
    with connect(settings.postgres_url or "") as connection:
        for hour in files_waiting(connection):
            while merge_some(connection, settings.lake_uri, hour):
                count += 1
    return count


def read_everything(settings: Settings, *, messages_per_batch: int = 40) -> None:
    """Read to the broker's end in small batches, merge after each, then close what can be closed."""
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    with (
        few_files(),
        pytest.MonkeyPatch.context() as patch,
        connect(settings.postgres_url or "") as connection,
    ):
        patch.setattr(plain_stream, "MESSAGES_PER_BATCH", messages_per_batch)
        topic = broker.describe()
        claim_topic(connection, topic.name, topic.id)
        while plain_stream.read_some(settings, broker, connection, topic):
            merge_everything(settings)
        plain_stream.looks(settings, broker).heartbeat(connection)


if __name__ == "__main__":
    read_everything(load_settings())
