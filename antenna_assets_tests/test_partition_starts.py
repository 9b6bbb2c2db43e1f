"""Row 33 of docs/proofs.md: messages that were gone before the first read, that Kafka lost after it, or that were copied."""

import json
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.kafka_broker import Broker, retention_warning
from antenna_assets.clients.postgres import connect
from antenna_assets.errors import StreamError
from antenna_assets.ledger.head import claim_topic, next_life, read_head
from antenna_assets.ledger.loss import accept_losses, skip_record
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.ledger.partition_starts import parse_start_position, settle_starts
from antenna_assets.ledger.progress import next_to_read
from antenna_assets.ledger.stream_lock import StreamRunning, only_stream
from antenna_assets.settings import Settings
from antenna_assets.streaming.committer import Committer
from antenna_assets.streaming.double_counting import doubled_reading
from antenna_assets.streaming.embedded_sums import embedded_sums
from antenna_assets.streaming.exact_ranges import PartBounds, read_ranges
from antenna_assets.streaming.spark.micro_batch import MicroBatches
from antenna_assets_tests.alerting import well_within_an_hour
from antenna_assets_tests.end_to_end.runs import place
from antenna_assets_tests.exactness import named_by_the_ledger
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.topics import create_again, let_senders_choose_times, truncate

services = pytest.mark.services


def event(number: int) -> bytes:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    time = int(hour.timestamp()) + number
    return json.dumps(
        {"bytes": number, "timestamp": time, "app": "SKYPE", "id": "u1", "antenna_id": "a1"}
    ).encode()


def settle(settings: Settings, connection: psycopg.Connection, asked: str | None = None) -> list[str]:
    """What a start of the stream does before it reads; what it said."""
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    found = broker.describe()
    head = claim_topic(connection, found.name, found.id)
    topic = type(found)(found.name, head.topic_id, found.partitions)
    said: list[str] = []
    settle_starts(
        connection,
        broker,
        topic,
        None if asked is None else parse_start_position(asked),
        said.append,
        lambda first: doubled_reading(connection, broker, topic, settings.lake_uri, first),
    )
    return said


def following(settings: Settings, connection: psycopg.Connection) -> dict[int, int]:
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    return next_to_read(connection, broker, broker.describe())


@pytest.mark.parametrize("text", ["first", "2026-11-20T10:00:00", "0:1,0:2", "0:-1", "0", "0:1,", ""])
def test_row_33_a_start_that_means_nothing_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(StreamError, match="expected earliest, latest, a time such as"):
        parse_start_position(text)


@services
def test_row_33_messages_that_were_gone_before_the_first_look_are_said_and_shown(
    settings: Settings, connection: psycopg.Connection
) -> None:
    place(settings, ((0, event(number)) for number in range(10)))
    truncate(settings, 0, 7)
    assert settle(settings, connection) == [
        f"partition 0 of {settings.topic}: Kafka's first offset is 7, so messages 0 to 6 were gone before the stream first "
        "saw it; they are in no hour"
    ]
    # Once: what was noted does not change.
    assert settle(settings, connection) == []
    assert following(settings, connection) == {0: 7, 1: 0, 2: 0, 3: 0}
    shown = CliRunner().invoke(app, ["status"], env={"COLUMNS": "200"}).output
    assert "gone before the stream first saw the partition" in shown


@services
def test_row_33_messages_that_go_between_the_first_look_and_the_first_read_are_a_loss(
    settings: Settings, connection: psycopg.Connection
) -> None:
    settle(settings, connection)
    place(settings, ((0, event(number)) for number in range(10)))
    truncate(settings, 0, 7)
    assert following(settings, connection)[0] == 0
    (loss,) = accept_losses(connection, Broker(settings.kafka_bootstrap or "", settings.topic), "too slow")
    assert str(loss) == "partition 0: 7 messages, offsets 0 to 6"
    read_everything(settings)
    assert named_by_the_ledger(settings) == [(0, 7), (0, 8), (0, 9)]


@services
def test_row_33_a_start_is_recorded_and_holds_until_something_is_read(
    settings: Settings, connection: psycopg.Connection
) -> None:
    place(settings, ((number % 2, event(number)) for number in range(10)))
    ends = {0: 5, 1: 5, 2: 0, 3: 0}
    for asked, expected in (
        ("latest", ends),
        ("earliest", dict.fromkeys(range(4), 0)),
        ("0:2,1:5,2:0,3:0", {0: 2, 1: 5, 2: 0, 3: 0}),
        ((datetime.now(UTC) - timedelta(hours=1)).isoformat(), dict.fromkeys(range(4), 0)),
        ((datetime.now(UTC) + timedelta(minutes=1)).isoformat(), ends),
        ("0:3,1:4,2:0,3:0", {0: 3, 1: 4, 2: 0, 3: 0}),
    ):
        settle(settings, connection, asked)
        assert following(settings, connection) == expected, asked
    # A service is started again with the same arguments, or without.
    assert settle(settings, connection, "0:3,1:4,2:0,3:0") == settle(settings, connection) == []
    with pytest.raises(StreamError, match="Kafka has offsets 0 to 5 of partition 0, not 6"):
        settle(settings, connection, "0:6,1:4,2:0,3:0")
    with pytest.raises(StreamError, match="expected each of the partitions 0, 1, 2, 3 once"):
        settle(settings, connection, "0:3")
    read_from_the_noted_places(settings, connection)
    assert settle(settings, connection, "0:3,1:4,2:0,3:0") == []
    with pytest.raises(StreamError, match="the ledger has read partition 0 of .* up to offset 5"):
        settle(settings, connection, "earliest")
    assert (
        "antenna stream --from 0:3,1:4" in CliRunner().invoke(app, ["status"], env={"COLUMNS": "200"}).output
    )


def read_from_the_noted_places(settings: Settings, connection: psycopg.Connection) -> None:
    """A batch as the stream commits it, of what is unread; without files, as nothing here looks at them."""
    from antenna_assets.ledger.batch import BatchContent, BatchPlan
    from antenna_assets.ledger.commit import Observation, commit_batch

    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    places, ends = following(settings, connection), broker.next_offsets(broker.describe())
    head = read_head(connection, settings.topic)
    commit_batch(
        connection,
        BatchPlan(
            settings.topic,
            head.topic_id,
            head.batch + 1,
            datetime.now(UTC),
            [OffsetRange(p, places[p], ends[p]) for p in sorted(places) if places[p] < ends[p]],
        ),
        BatchContent(),
        Observation(datetime.now(UTC)),
        lateness=settings.lateness,
    )


@services
def test_row_33_a_topic_that_is_a_copy_names_the_hours_that_would_double_and_one_made_anew_is_read(
    settings: Settings, connection: psycopg.Connection
) -> None:
    well_within_an_hour(connection)
    values = [(number % 4, event(number)) for number in range(40)]
    place(settings, values)
    settle(settings, connection)
    read_everything(settings)
    create_again(settings, 4)
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    accept_losses(connection, broker, "another cluster")
    # With other messages of the very same hour it is a new one.
    place(settings, ((number % 4, event(1_000 + number)) for number in range(20)))
    assert settle(settings, connection) == []
    create_again(settings, 4)
    accept_losses(connection, broker, "another cluster")
    place(settings, values)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    with pytest.raises(
        StreamError, match=f"1 hour may double: {hour:%Y-%m-%d-%H}:00; .*antenna stream --from"
    ):
        settle(settings, connection)
    settle(settings, connection, "latest")
    assert following(settings, connection) == dict.fromkeys(range(4), 10)


@services
def test_row_33_messages_that_kafka_lost_after_they_were_read_begin_another_life_of_the_topic(
    settings: Settings, connection: psycopg.Connection
) -> None:
    place(settings, ((number % 2, event(number)) for number in range(20)))
    settle(settings, connection)
    read_everything(settings)
    before = named_by_the_ledger(settings)
    # What a power cut leaves of a single node: less than the ledger has. Here the ledger is told of more than there was.
    connection.execute(
        "UPDATE ledger.batch_offset SET until_offset = 13 WHERE partition = 0 AND until_offset = 10"
    )
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    result = CliRunner().invoke(app, ["accept-loss", "--yes"], env={"COLUMNS": "400"})
    assert "partition 0: the ledger ends at offset 13 and Kafka at 10" in result.output
    head = read_head(connection, settings.topic)
    assert head.topic_id == next_life(broker.describe().id) == f"{broker.describe().id}#2"
    # Two came since, where others had been.
    came = datetime.now(UTC)
    place(settings, [(0, event(100)), (0, event(101)), (1, event(102))])
    with pytest.raises(StreamError, match="Kafka has lost messages of .* that were read.*--from"):
        settle(settings, connection)
    settle(settings, connection, came.isoformat())
    assert following(settings, connection) == {0: 10, 1: 10, 2: 0, 3: 0}
    read_from_the_noted_places(settings, connection)
    ranges = connection.execute(
        "SELECT topic_id LIKE '%#2', partition, from_offset, until_offset FROM ledger.batch_offset ORDER BY 1, 2"
    ).fetchall()
    assert ranges == [(False, 0, 0, 13), (False, 1, 0, 10), (True, 0, 10, 12), (True, 1, 10, 11)]
    assert named_by_the_ledger(settings) == before
    assert accept_losses(connection, broker, "again") == []
    assert next_life("id#2") == "id#3"


@services
def test_row_32_a_record_is_stepped_over_if_it_is_the_next_to_read_and_no_stream_runs(
    settings: Settings, connection: psycopg.Connection
) -> None:
    place(settings, ((0, event(number)) for number in range(3)))
    settle(settings, connection)
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    for partition, offset, why in (
        (0, 1, "expected 0"),
        (1, 0, "no record at offset 0 yet"),
        (9, 0, "no partition 9"),
    ):
        with pytest.raises(StreamError, match=why):
            skip_record(connection, broker, partition, offset, "no")
    with connect(settings.postgres_url or "") as other, only_stream(other):
        with pytest.raises(StreamRunning):
            skip_record(connection, broker, 0, 0, "no")
        assert connection.execute("SELECT count(*) FROM ledger.accepted_loss").fetchone() == (0,)
    command = ["accept-loss", "--skip", "0", "0", "--reason", "600 MB"]
    assert (
        "partition 0: 1 message, offsets 0 to 0: recorded as lost" in CliRunner().invoke(app, command).output
    )
    assert connection.execute(
        "SELECT partition, from_offset, until_offset, reason FROM ledger.accepted_loss"
    ).fetchall() == [(0, 0, 1, "600 MB")]
    read_everything(settings)
    assert named_by_the_ledger(settings) == [(0, 1), (0, 2)]


@services
def test_row_32_exact_ranges_end_where_they_were_planned_whatever_control_records_are_in_them(
    settings: Settings,
) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "transactional.id": settings.topic})
    producer.init_transactions()
    for number, end in enumerate((producer.commit_transaction, producer.abort_transaction) * 2):
        producer.begin_transaction()
        producer.produce(settings.topic, event(number), partition=0)
        assert producer.flush(30) == 0
        end()
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    assert broker.next_offsets(broker.describe())[0] == 8
    found = list(read_ranges(broker, [OffsetRange(0, 0, 8), OffsetRange(1, 0, 0)], PartBounds(messages=1)))
    assert [part.ranges for part in found] == [
        [OffsetRange(0, 0, 1)],
        [OffsetRange(0, 1, 5)],
        [OffsetRange(0, 5, 8)],
    ]
    assert [part.record for part in found] == [(0, 0), (0, 4), None]


@services
def test_row_32_a_range_of_control_records_alone_is_committed_without_files(
    settings: Settings, connection: psycopg.Connection
) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "transactional.id": settings.topic})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(settings.topic, event(1), partition=2)
    assert producer.flush(30) == 0
    producer.abort_transaction()
    settle(settings, connection)
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    committer = Committer(settings, broker, say=lambda _line: None, on_commit=lambda: None)
    batches = MicroBatches(settings, broker, committer, stop=threading.Event())
    with embedded_sums(settings) as engine:
        # No Spark, as there is nothing to parse.
        batches.read_exactly(connection, engine, None, broker.describe(), {2: 2}, 10, out_of_memory=False)
    assert following(settings, connection) == {0: 0, 1: 0, 2: 2, 3: 0}
    assert connection.execute("SELECT count(*) FROM ledger.file").fetchone() == (0,)


@services
def test_row_33_a_topic_that_we_make_keeps_messages_by_their_arrival_and_a_foreign_one_is_named(
    settings: Settings,
) -> None:
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    assert broker.describe().kept_by_sender is None
    let_senders_choose_times(settings, retention_ms=604_800_000)
    kept = broker.describe().kept_by_sender
    assert kept == timedelta(days=7)
    assert "keeps messages for 604,800 s of their senders' time" in retention_warning(
        settings.topic, kept, settings.horizon
    )
    assert retention_warning(settings.topic, kept, timedelta(days=7)) == ""
