"""The errors of a stream that more than one of its modules raises or handles."""

from collections.abc import Mapping

import psycopg

from antenna_assets.clients.postgres_errors import error_line
from antenna_assets.domain.counted import counted
from antenna_assets.errors import StreamError


class QueryFailed(StreamError):
    """Spark ended the query; another start from the ledger may succeed."""


class StateUnwritable(StreamError):
    """The state directory, or the folder of Spark's temporary files, cannot be written now."""


class ReaderFailed(StreamError):
    """A reader failed; its `recover` prepares another start, or raises if there is no way to go on."""


class ReadingFailed(QueryFailed, ReaderFailed):
    """Spark failed while it read or validated messages.

    Attributes:
        until: the offset before which the messages end, of each of their partitions.
        messages: an upper bound of their number.
        record: partition and offset, if it was a single one.
    """

    def __init__(
        self, reason: str, until: Mapping[int, int], messages: int, record: tuple[int, int] | None = None
    ) -> None:
        super().__init__(f"Spark could not read {counted(messages, 'message')}: {reason}")
        self.reason = reason
        self.until = until
        self.messages = messages
        self.record = record


def first_line(error: BaseException) -> str:
    """An error's message in one line."""
    if isinstance(error, psycopg.Error):
        return error_line(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # Java's innermost cause says most; the first line of py4j only that there was an error. What a Python of
    # Spark's raised is the last line of its traceback.
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    if causes:
        return causes[-1]
    return lines[-1] if any(line.startswith("Traceback (most recent") for line in lines) else lines[0]
