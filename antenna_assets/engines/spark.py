"""The distributed engine: Spark SQL on the session's master or Spark Connect server.

Only the DataFrame and SQL interfaces are used, since Spark Connect gives no access to the JVM. The caller
starts and stops the session.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa

from antenna_assets.engines.contract import (
    BATCH_ROWS,
    FOLDER_AND_NAME,
    Dataset,
    WrittenFile,
    check_types,
    checked_table,
)
from antenna_assets.engines.output import files_with_rows, new_folder
from antenna_assets.errors import EngineError
from antenna_assets.storage.disk import FREE_SPACE_HINT, is_full
from antenna_assets.storage.files import Entry, walk
from antenna_assets.storage.paths import in_parallel, lake_path

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData
    from pyspark.sql import DataFrame, DataFrameWriter, SparkSession

SESSION = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    # The default is INT96, which other readers take for nanoseconds.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.adaptive.enabled": "true",
    # A result is split by size, not by cores. 256 MB in a shuffle are about 120 MB of zstd parquet.
    "spark.sql.adaptive.advisoryPartitionSizeInBytes": "256MB",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
}
"""Configuration that this engine needs, set in its session at its first use."""


class SparkEngine:
    """Runs on the session that `session_factory` returns; it is called once, at the first use."""

    name = "spark"

    def __init__(self, session_factory: "Callable[[], SparkSession]") -> None:
        self._factory = session_factory
        self._lock = Lock()
        self._started: SparkSession | None = None
        self._closed = False

    def write(
        self, sql: str, inputs: Mapping[str, Dataset], schema: pa.Schema, target: str
    ) -> list[WrittenFile]:
        """See `Engine.write`."""
        with new_folder(target), self._result(sql, inputs, schema) as result:
            _writer(result.hint("rebalance")).parquet(target)
            return _written(target, schema)

    def read(self, sql: str, inputs: Mapping[str, Dataset], schema: pa.Schema) -> pa.Table:
        """See `Engine.read`."""
        with self._result(sql, inputs, schema) as result:
            return checked_table(result.toArrow(), schema)

    @contextmanager
    def stream(
        self, sql: str, inputs: Mapping[str, Dataset], schema: pa.Schema, scratch: str
    ) -> Iterator[Iterator[pa.RecordBatch]]:
        """See `Engine.stream`. Tasks write the rows, and the driver reads them a part of a file at a time."""
        with self._result(sql, inputs, schema) as result:
            # A task's file has a range of the order, and the files are named in it.
            _writer(result).parquet(scratch)
        files = sorted(file.path for file in _written(scratch, schema))
        yield (batch for file in files for batch in _batches(file, schema))

    def close(self) -> None:
        """Refuse further calls. The session is not stopped: others may use it."""
        with self._lock:
            self._closed = True
            self._started = None

    def _session(self) -> "SparkSession":
        with self._lock:
            if self._closed:
                raise EngineError("this engine was closed; make a new one")
            if self._started is None:
                self._started = self._factory()
                for key, value in SESSION.items():
                    self._started.conf.set(key, value)
            return self._started

    @contextmanager
    def _result(self, sql: str, inputs: Mapping[str, Dataset], schema: pa.Schema) -> "Iterator[DataFrame]":
        """The SELECT's rows, not computed yet."""
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.sql.pandas.types import to_arrow_schema

        # Temporary views belong to the whole session: concurrent calls need unique names. The CTE gives each
        # view the name that the SELECT uses.
        views = {name: f"{name}_{uuid4().hex}" for name in inputs}
        named = ", ".join(f"`{name}` AS (TABLE `{view}`)" for name, view in views.items())
        try:
            session = self._session()
            try:
                for name, view in views.items():
                    _dataframe(session, inputs[name]).createOrReplaceTempView(view)
                result = session.sql(f"WITH {named} SELECT * FROM (\n{sql}\n)" if views else sql)  # noqa: S608
                check_types(to_arrow_schema(result.schema, timezone="UTC"), schema)
                yield result
            finally:
                for view in views.values():
                    session.catalog.dropTempView(view)
        except (PySparkException, Py4JError) as error:
            # The other lines are the query's plan and the JVM's stack.
            full = f"; no space left on device: {FREE_SPACE_HINT}" if is_full(error) else ""
            raise EngineError(f"Spark: {str(error).strip().splitlines()[0]}{full}") from error


def _dataframe(session: "SparkSession", dataset: Dataset) -> "DataFrame":
    from pyspark.sql.pandas.types import from_arrow_schema

    if not dataset.files:
        return session.createDataFrame([], from_arrow_schema(dataset.columns, prefer_timestamp_ntz=True))
    columns = [f"`{name}`" for name in dataset.schema.names]
    if dataset.file_column is not None:
        columns.append(
            f"regexp_extract(_metadata.file_path, '{FOLDER_AND_NAME}', 0) AS `{dataset.file_column}`"
        )
    return session.read.parquet(*map(_literal, dataset.files)).selectExpr(*columns)


def _writer(result: "DataFrame") -> "DataFrameWriter":
    writer = result.write.mode("append").option("compression", "zstd")
    return writer.option("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")


def _batches(file: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    from pyarrow.parquet import ParquetFile

    with lake_path(file).open("rb") as opened, ParquetFile(opened, pre_buffer=False) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS, use_threads=False):
            yield from checked_table(pa.table(batch), schema).to_batches()


def _literal(path: str) -> str:
    """The Hadoop pattern that matches this path alone."""
    return "".join(f"\\{letter}" if letter in "*?[]{}\\" else letter for letter in path)


def _written(target: str, schema: pa.Schema) -> list[WrittenFile]:
    """The result's files, by their footers."""
    from pyarrow.parquet import read_metadata

    def footer_of(file: Entry) -> "FileMetaData":
        with file.path.open("rb") as opened:
            return read_metadata(opened)

    files = [one for one in walk(lake_path(target)) if _is_result(one)]
    return files_with_rows(
        (
            WrittenFile(f"{target}/{file.path.name}", footer.num_rows, file.size, _null_counts(footer))
            for file, footer in zip(files, in_parallel(footer_of, files), strict=True)
        ),
        schema,
    )


def _null_counts(footer: "FileMetaData") -> Mapping[str, int]:
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    nulls: Counter[str] = Counter()
    for column in columns:
        nulls[column.path_in_schema] += column.statistics.null_count
    return nulls


def _is_result(found: Entry) -> bool:
    return found.path.name.endswith(".parquet") and not found.path.name.startswith(".")
