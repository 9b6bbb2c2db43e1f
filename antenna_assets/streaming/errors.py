"""The errors of a stream that more than one of its modules raises or tells apart."""

from collections.abc import Mapping

import psycopg

from antenna_assets.clients.postgres_errors import told
from antenna_assets.errors import EngineError, StreamError


class QueryFailed(StreamError):
    """Spark gave the query up; another start from the ledger may succeed."""


class StateUnwritable(StreamError):
    """The state directory, or the folder of Spark's temporary files, cannot be written now."""


class ReadingFailed(QueryFailed):
    """Spark failed while it read messages or judged them.

    Attributes:
        until: the offset that they end before, of each of their partitions.
        messages: how many there are at most.
        record: partition and offset, if it was a single one.
    """

    def __init__(
        self, why: str, until: Mapping[int, int], messages: int, record: tuple[int, int] | None = None
    ) -> None:
        super().__init__(f"Spark could not read {messages:,} messages: {why}")
        self.why = why
        self.until = until
        self.messages = messages
        self.record = record


def is_spark_error(error: BaseException) -> bool:
    """Whether Spark or its Java failed, by itself or as the engine of the sums."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    found = error.__cause__ if isinstance(error, EngineError) else error
    return isinstance(found, (Py4JError, PySparkException, ConnectionError, EOFError))


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, psycopg.Error):
        return told(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # Java's innermost cause says most; the first line of py4j only that there was an error.
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return causes[-1] if causes else lines[0]
