"""Spark's Java process as the stream sees it: detecting that it has exited, and replacing it.

It is started in `engines/spark_session.py`; `stack/java.py` finds the Java.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from antenna_assets.engines.spark_session import java_has_exited
from antenna_assets.errors import EngineError
from antenna_assets.streaming.errors import QueryFailed, ReaderFailed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class SparkEnded(ReaderFailed):
    """Spark's Java process has exited."""


@contextmanager
def java_exit_detected() -> Iterator[None]:
    """Turn the errors of a block into one if Spark's Java process has exited.

    Each call into it fails differently then.

    Raises:
        SparkEnded: it has; what is committed is whole.
    """
    try:
        yield
    except Exception as error:
        # The connection breaks a moment before the process is seen to have exited.
        if _is_of_java(error) and java_exits_within(1):
            raise SparkEnded(
                "Spark's Java process ended: it was killed, or there was no memory left; "
                "start the stream again: it resumes from the ledger"
            ) from error
        raise


def java_exits_within(seconds: float) -> bool:
    """Whether Java has exited or does so within this time: its connections break a moment before."""
    end = time.monotonic() + seconds
    while not java_has_exited():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def java_crashed() -> bool:
    """Whether Java exited with an error, such as out of memory, and was not killed."""
    from pyspark import SparkContext

    process = getattr(SparkContext._gateway, "proc", None)
    code = None if process is None else process.poll()
    return code is not None and code > 0


def discard_java() -> None:
    """Let the next session of this process start a new Java: the present one has exited."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    context, gateway = SparkContext._active_spark_context, SparkContext._gateway
    accumulators = getattr(context, "_accumulatorServer", None)
    if accumulators is not None:
        accumulators.shutdown()
    if gateway is not None:
        # Closes the sockets of this side, and its server for calls from Java.
        gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None
    SparkSession._instantiatedSession = None


def stop_spark(spark: "SparkSession") -> None:
    """Stop a session. If Java has exited, or does so meanwhile, there is nothing to stop."""
    if java_has_exited():
        return
    try:
        spark.stop()
    except Exception as error:
        if not (_is_of_java(error) and java_exits_within(1)):
            raise


def is_spark_error(error: BaseException) -> bool:
    """Whether Spark or its Java failed, as reader or as the engine of the sums."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    found = error.__cause__ if isinstance(error, EngineError) else error
    return isinstance(found, (Py4JError, PySparkException, ConnectionError, EOFError))


def _is_of_java(error: BaseException) -> bool:
    from py4j.protocol import Py4JError

    # A batch's failure is wrapped by then.
    return isinstance(error, (Py4JError, ConnectionError, EOFError, QueryFailed))
