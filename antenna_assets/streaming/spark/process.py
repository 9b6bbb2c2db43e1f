"""Spark's Java process as the stream sees it: if it is gone, one sentence says so.

How it is started is in `engines/spark_session.py`; which Java it is, in `stack/java.py`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from antenna_assets.engines.spark_session import java_has_exited
from antenna_assets.errors import StreamError
from antenna_assets.streaming.errors import QueryFailed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class SparkEnded(StreamError):
    """Spark's Java process is gone."""


@contextmanager
def java_exit_detected() -> Iterator[None]:
    """Say it in one sentence if Spark's Java process is gone: every call into it fails in another way then.

    Raises:
        SparkEnded: it is; what is committed is whole, as ever.
    """
    try:
        yield
    except Exception as error:
        # The connection breaks a moment before the process can be seen to be gone.
        if _is_of_java(error) and java_exits_within(1):
            raise SparkEnded(
                "Spark's Java process ended: it was killed, or there was no memory left; "
                "start the stream again, and it goes on from the ledger"
            ) from error
        raise


def java_exits_within(seconds: float) -> bool:
    """Whether Java is gone, or goes meanwhile: its connections break a moment before."""
    end = time.monotonic() + seconds
    while not java_has_exited():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def java_crashed() -> bool:
    """Whether Java ended by an error of its own, as without memory, and was not killed."""
    from pyspark import SparkContext

    process = getattr(SparkContext._gateway, "proc", None)
    code = None if process is None else process.poll()
    return code is not None and code > 0


def discard_java() -> None:
    """Let the next session of this process start another Java, in the place of one that is gone."""
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
    """Stop a session. A Java process that is gone, or goes meanwhile, leaves nothing to stop."""
    if java_has_exited():
        return
    try:
        spark.stop()
    except Exception as error:
        if not (_is_of_java(error) and java_exits_within(1)):
            raise


def _is_of_java(error: BaseException) -> bool:
    from py4j.protocol import Py4JError

    # A batch's failure is wrapped by then.
    return isinstance(error, (Py4JError, ConnectionError, EOFError, QueryFailed))
