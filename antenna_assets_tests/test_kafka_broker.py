"""Questions to Kafka while the leaders of partitions change: they are asked again, not given up."""

from concurrent.futures import Future
from typing import Any

import pytest

from antenna_assets.clients import kafka_broker
from antenna_assets.clients.kafka_broker import Broker, BrokerError
from antenna_assets.settings import Settings

pytestmark = pytest.mark.services


class Unready:
    """The real client, whose first answers on offsets are this error."""

    def __init__(self, admin: Any, code: int, times: int) -> None:
        self._admin, self._code, self._times = admin, code, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._admin, name)

    def list_offsets(self, asked: dict[Any, Any], **options: Any) -> dict[Any, Future]:
        from confluent_kafka import KafkaError, KafkaException

        if not self._times:
            return self._admin.list_offsets(asked, **options)
        self._times -= 1
        answers: dict[Any, Future] = {place: Future() for place in asked}
        for answer in answers.values():
            answer.set_exception(KafkaException(KafkaError(self._code)))
        return answers


@pytest.mark.parametrize(
    "name",
    [
        "NOT_LEADER_FOR_PARTITION",
        "LEADER_NOT_AVAILABLE",
        "REPLICA_NOT_AVAILABLE",
        "FENCED_LEADER_EPOCH",
        "UNKNOWN_LEADER_EPOCH",
        "OFFSET_NOT_AVAILABLE",
        "KAFKA_STORAGE_ERROR",
    ],
)
def test_offsets_are_asked_for_again_while_a_partition_has_no_settled_leader(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from confluent_kafka import KafkaError

    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    topic = broker.describe()
    monkeypatch.setattr(broker, "_admin", Unready(broker._admin, getattr(KafkaError, name), times=2))
    assert broker.next_offsets(topic) == dict.fromkeys(topic.partitions, 0)


def test_a_partition_that_stays_without_a_leader_is_an_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from confluent_kafka import KafkaError

    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    topic = broker.describe()
    unready = Unready(broker._admin, KafkaError.UNKNOWN_LEADER_EPOCH, times=1_000)
    monkeypatch.setattr(broker, "_admin", unready)
    monkeypatch.setattr(kafka_broker, "TIMEOUT_SECONDS", 0.3)
    with pytest.raises(BrokerError, match="Leader epoch is newer than broker epoch"):
        broker.next_offsets(topic)
