"""The session of a stream: a connection with the stream's lock, opened once all preconditions hold."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg

from antenna_assets.clients.kafka_broker import Broker, Topic, retention_warning
from antenna_assets.clients.migrations import require_migrated
from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_session import STREAM
from antenna_assets.errors import StreamError
from antenna_assets.ledger.first_partition import require_start
from antenna_assets.ledger.head import claim_topic
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.ledger.live_tables import note_live_tables
from antenna_assets.ledger.offsets import committed_offsets
from antenna_assets.ledger.partition_starts import StartPosition, read_starts, settle_starts
from antenna_assets.ledger.stream_lock import only_stream
from antenna_assets.settings import Settings
from antenna_assets.storage.attempt import lake_access, require_writable
from antenna_assets.streaming.double_counting import doubled_reading


class StreamSessions:
    """Opens the sessions of one stream, one after the other.

    Args:
        start: where a topic begins that the ledger has not read yet.
        say: takes one line of progress.
    """

    def __init__(
        self,
        settings: Settings,
        postgres_url: str,
        broker: Broker,
        *,
        start: StartPosition | None,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._postgres_url = postgres_url
        self._broker = broker
        self._start = start
        self._say = say
        self._warned: set[str] = set()

    @contextmanager
    def open(self) -> Iterator[tuple[psycopg.Connection, Topic]]:
        """A connection that holds the stream's lock, and the topic with the id that the ledger knows.

        Raises:
            StreamRunning: another stream holds the lock.
            StreamError, LedgerError: unread messages are gone from Kafka, or the topic is another one.
            DatabaseError, BrokerError, LakeUnwritable, WrongLake: one of them cannot be used.
        """
        lake = self._settings.lake_uri
        with connect(self._postgres_url, application="antenna stream", limits=STREAM) as connection:
            require_migrated(connection)
            require_start(connection, self._settings.start)
            with only_stream(connection):
                # Before anything is written to the lake, a probe included.
                with lake_access(lake):
                    require_own_lake(connection, lake)
                require_writable(lake)
                found = self._broker.describe()
                # Spark would try again and again.
                self._broker.require_read()
                topic = replace(found, id=claim_topic(connection, found.name, found.id).topic_id)
                note_live_tables(connection, self._settings.live_windows)
                self._warn(topic)
                # Before a start is noted: the ledger must not end at messages that are gone.
                self._require_unread_messages_exist(connection, topic)
                settle_starts(
                    connection,
                    self._broker,
                    topic,
                    self._start,
                    self._say,
                    lambda first: doubled_reading(connection, self._broker, topic, lake, first),
                )
                yield connection, topic

    def _warn(self, topic: Topic) -> None:
        """Say once which of the topic's settings may lose messages without an error."""
        for warning in (
            topic.warning,
            retention_warning(topic.name, topic.kept_by_sender, self._settings.horizon),
        ):
            if warning and warning not in self._warned:
                self._warned.add(warning)
                self._say(warning)

    def _require_unread_messages_exist(self, connection: psycopg.Connection, topic: Topic) -> None:
        first = self._broker.earliest(topic)
        following = self._broker.next_offsets(topic)
        starts = {start.partition: start.start_offset for start in read_starts(connection, topic.id).values()}
        unread = starts | committed_offsets(connection, topic.id, topic.partitions)
        for partition, offset in unread.items():
            where = f"partition {partition} of {topic.name}: the ledger ends at offset {offset}"
            if first[partition] > offset:
                raise StreamError(
                    f"{where}, but Kafka's first is {first[partition]}: messages {offset} to "
                    f"{first[partition] - 1} are gone from Kafka unread; `antenna accept-loss` records it "
                    "and lets the stream go on"
                )
            if following[partition] < offset:
                raise StreamError(
                    f"{where}, but Kafka ends at {following[partition]}: Kafka lost messages that were read, "
                    "or this is another cluster; `antenna accept-loss` records it, and `antenna stream "
                    "--from` says where to go on"
                )
