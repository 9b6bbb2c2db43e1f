"""The landed and rejected files of an hour, opened, counted and compared with the ledger and the certificate.

Landed files that no certificate covers yet are compared with the ledger alone. Whether the lake's tables hold
the same rows is compared in `lake.py`.
"""

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import psycopg
import pyarrow as pa

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.ledger.certificate import Certificate
from antenna_assets.ledger.files import FileRow, files_of_hour, rejected_files
from antenna_assets.storage.paths import in_parallel, lake_path, reason_of
from antenna_assets.verify.difference import Difference, compare
from antenna_assets.verify.parquet import Parquet

_RANGE = dict.fromkeys(("partition", "from_offset", "until_offset", "batch"), pa.int64())


class Landing:
    """The landed files of a lake. A file with rejected messages is read once for all hours of its batches."""

    def __init__(self, connection: psycopg.Connection, root: str, parquet: Parquet) -> None:
        self._connection = connection
        self._root = root
        self._parquet = parquet
        self._rejected: dict[str, Counter[tuple[int | None, str]]] = {}

    def paths(self, certificate: Certificate) -> list[str]:
        """Return the files of a certified hour."""
        files = files_of_hour(self._connection, certificate.hour, certificate.content["up_to_batch"])
        return [self._path(file) for file in files]

    def differences(self, certificate: Certificate) -> list[Difference]:
        """Return what differs in the files of a certified hour."""
        files = files_of_hour(self._connection, certificate.hour, certificate.content["up_to_batch"])
        found = [*self._files(hour_key(certificate.hour), files)]
        if not found:
            found += self._events(certificate, files)
        return [
            *found,
            *self._rejections(certificate, sorted({one for file in files for one in file.batches})),
        ]

    def differences_beyond(self, hour: datetime, batch: int) -> list[Difference]:
        """Return what differs in an hour's landed files of later batches, which no certificate covers yet."""
        files = [file for file in files_of_hour(self._connection, hour) if file.batch > batch]
        return [*self._files(hour_key(hour), files)]

    def other_rejections(self) -> Iterator[Difference]:
        """Yield what differs in the files of rejected messages that belong to no hour compared so far."""
        for file in rejected_files(self._connection):
            if file.path not in self._rejected:
                yield from self._count_rejected(f"batch {file.batch}", file)

    def _path(self, file: FileRow) -> str:
        return posixpath.join(self._root, file.path)

    def _files(self, hour: str, files: Sequence[FileRow]) -> Iterator[Difference]:
        unreadable = self._parquet.unreadable([self._path(file) for file in files])
        for file in files:
            if self._path(file) in unreadable:
                yield Difference(
                    hour, f"file {file.path}", counted(file.rows, "row"), unreadable[self._path(file)]
                )
        readable = [file for file in files if self._path(file) not in unreadable]
        measured = {
            path: (rows, bytes_)
            for path, rows, bytes_ in self._parquet.rows(
                "SELECT filename, count(*), sum(bytes)::BIGINT"
                " FROM read_parquet(?, filename = true, hive_partitioning = false) GROUP BY filename",
                [self._path(file) for file in readable],
            )
        }
        sizes = in_parallel(lambda file: lake_path(self._path(file)).stat().st_size, readable)
        for file, size in zip(readable, sizes, strict=True):
            rows, bytes_ = measured.get(self._path(file), (0, 0))
            yield from compare(
                hour,
                f"file {file.path}",
                {"rows": file.rows, "bytes": file.bytes, "size": file.size},
                {"rows": rows, "bytes": bytes_, "size": size},
            )

    def _events(self, certificate: Certificate, files: Sequence[FileRow]) -> Iterator[Difference]:
        """Every event is in its hour, within the offsets of a batch of its file, and there once."""
        if not files:
            return
        key = hour_key(certificate.hour)
        self._register_batches(files)
        counts = self._parquet.rows(
            # Partition and offset are a key within a topic; a topic that was recreated counts from 0 again. A
            # replay has no offsets of its own: its rows keep those that they were rejected with, and the
            # ledger knows their topic. Where a replay has the same coordinates of two topics, its rows are
            # numbered and matched in turn.
            "WITH event AS ("
            "  SELECT file.path, file.batch, file.topic_id, kafka_partition, kafka_offset, timestamp"
            "  FROM read_parquet($1, filename = true, hive_partitioning = false) AS event"
            "  JOIN file ON file.path = event.filename"
            "), streamed AS ("
            # The range that begins last before the row is the only one that can hold it: none overlap.
            "  SELECT event.topic_id, kafka_partition, kafka_offset, timestamp,"
            "   of_file.batch IS NULL AS outside"
            "  FROM (SELECT * FROM event WHERE topic_id IS NOT NULL) AS event"
            "  ASOF LEFT JOIN batch_range AS range ON range.topic_id = event.topic_id"
            "   AND range.partition = event.kafka_partition AND range.from_offset <= event.kafka_offset"
            "  LEFT JOIN batch_of_file AS of_file ON of_file.path = event.path"
            "   AND of_file.batch = range.batch AND event.kafka_offset < range.until_offset"
            "), replayed AS ("
            "  SELECT of_replay.topic_id, event.kafka_partition, event.kafka_offset, timestamp,"
            "   of_replay.topic_id IS NULL AS outside"
            "  FROM (SELECT *, row_number() OVER (PARTITION BY batch, kafka_partition, kafka_offset)"
            "    AS number FROM event WHERE topic_id IS NULL) AS event"
            "  LEFT JOIN (SELECT *, row_number() OVER (PARTITION BY batch, kafka_partition, kafka_offset"
            "    ORDER BY topic_id) AS number FROM message_of_replay) AS of_replay"
            "   USING (batch, kafka_partition, kafka_offset, number)"
            "), every AS (SELECT * FROM streamed UNION ALL BY NAME SELECT * FROM replayed)"
            " SELECT count(*) - count(DISTINCT (topic_id, kafka_partition, kafka_offset)),"
            "  count(*) FILTER (WHERE timestamp < $2 OR timestamp >= $3), count(*) FILTER (WHERE outside)"
            " FROM every",
            [self._path(file) for file in files],
            certificate.hour,
            certificate.hour + HOUR,
        )
        duplicates, other_hour, outside = counts[0]
        yield from compare(key, "landed rows whose partition and offset another row has", 0, duplicates)
        yield from compare(key, "landed rows of another hour", 0, other_hour)
        yield from compare(key, "landed rows outside the offsets of their batch", 0, outside)

    def _register_batches(self, files: Sequence[FileRow]) -> None:
        """Give DuckDB the files with their batches and topics, the offsets, and the messages of replays."""
        batches = sorted({batch for file in files for batch in file.batches})
        ranges = self._connection.execute(
            "SELECT coalesce(topic_id, ''), partition, from_offset, until_offset, batch"
            " FROM ledger.batch LEFT JOIN ledger.batch_offset USING (batch)"
            " WHERE kind = 'stream' AND batch = ANY(%s)",
            [batches],
        ).fetchall()
        messages = self._connection.execute(
            "SELECT batch, topic_id, partition, kafka_offset FROM ledger.replayed WHERE batch = ANY(%s)",
            [batches],
        ).fetchall()
        # A merged file has rows of one topic.
        topics = {batch: topic_id for topic_id, *_, batch in ranges}
        of_file = [(self._path(file), file.batch, topics.get(file.batch)) for file in files]
        text, number = pa.string(), pa.int64()
        place = {"kafka_partition": pa.int32(), "kafka_offset": number}
        self._register("file", of_file, {"path": text, "batch": number, "topic_id": text})
        self._register(
            "batch_of_file",
            [(self._path(file), batch) for file in files for batch in file.batches],
            {"path": text, "batch": number},
        )
        self._register("batch_range", ranges, {"topic_id": text, **_RANGE})
        self._register("message_of_replay", messages, {"batch": number, "topic_id": text, **place})

    def _register(self, name: str, rows: Sequence[tuple], columns: Mapping[str, pa.DataType]) -> None:
        """Give DuckDB a table of these rows."""
        values = zip(*rows, strict=True) if rows else ([] for _ in columns)
        arrays = [pa.array(column, type_) for column, type_ in zip(values, columns.values(), strict=True)]
        self._parquet.connection.register(name, pa.Table.from_arrays(arrays, schema=pa.schema(columns)))

    def _rejections(self, certificate: Certificate, batches: Sequence[int]) -> Iterator[Difference]:
        """Count the rejected messages of the batches in their files."""
        key = hour_key(certificate.hour)
        total: Counter[str] = Counter()
        of_hour = set(batches)
        for file in rejected_files(self._connection, batches):
            if file.path not in self._rejected:
                yield from self._count_rejected(key, file)
            for (batch, reason), count in self._rejected[file.path].items():
                if batch in of_hour:
                    total[reason] += count
        yield from compare(
            key, "rejected messages in the files", certificate.content["rejected"], dict(total)
        )

    def _count_rejected(self, key: str, file: FileRow) -> Iterator[Difference]:
        """Read a file with rejected messages, once."""
        try:
            counts = self._rejected_counts(file)
        except self._parquet.errors as error:
            counts = Counter()
            yield Difference(key, f"file {file.path}", counted(file.rows, "row"), reason_of(error))
        else:
            size = lake_path(self._path(file)).stat().st_size
            held, found = {"rows": file.rows, "size": file.size}, {"rows": counts.total(), "size": size}
            yield from compare(key, f"file {file.path}", held, found)
        self._rejected[file.path] = counts

    def _rejected_counts(self, file: FileRow) -> Counter[tuple[int | None, str]]:
        """The messages of a file by batch and reason; the batch is None where no offsets of one hold them."""
        if len(file.batches) == 1:
            rows = self._parquet.rows(
                "SELECT reason, count(*) FROM read_parquet(?, hive_partitioning = false) GROUP BY reason",
                [self._path(file)],
            )
            return Counter({(file.batch, reason): count for reason, count in rows})
        ranges = self._connection.execute(
            "SELECT partition, from_offset, until_offset, batch FROM ledger.batch_offset"
            " WHERE batch = ANY(%s)",
            [file.batches],
        ).fetchall()
        self._register("rejected_range", ranges, _RANGE)
        rows = self._parquet.rows(
            "SELECT CASE WHEN kafka_offset < range.until_offset THEN range.batch END, reason, count(*)"
            " FROM read_parquet(?, hive_partitioning = false) AS message"
            " ASOF LEFT JOIN rejected_range AS range ON range.partition = message.kafka_partition"
            "  AND range.from_offset <= message.kafka_offset GROUP BY ALL",
            [self._path(file)],
        )
        return Counter({(batch, reason): count for batch, reason, count in rows})
