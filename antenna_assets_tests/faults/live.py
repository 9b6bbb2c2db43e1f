"""What goes on in a thread of the test: a stream, or calls again and again; and how far the ledger has come."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from antenna_assets.clients.postgres import connect
from antenna_assets.settings import Settings
from antenna_assets.streaming.job import Stream

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def committed(settings: Settings) -> int:
    with connect(settings.postgres_url or "") as connection:
        (rows,) = connection.execute("SELECT sum(rows + quarantined) FROM ledger.batch").fetchone() or (None,)
    return int(rows or 0)


def wait_until(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@contextmanager
def in_a_thread(
    run: Callable[[], object], stop: Callable[[], object], *, errors: list[BaseException] | None = None
) -> Iterator[None]:
    """Something that runs in another thread until the block ends; what it raises is the test's error.

    Args:
        stop: has it end within a minute.
        errors: takes what it raises, which then is not the test's error.
    """
    raised: list[BaseException] = [] if errors is None else errors

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(60)
        assert not thread.is_alive(), "it did not stop"
    assert errors is not None or raised == []


@contextmanager
def repeated(step: Callable[[], None], *, pause: float = 0) -> Iterator[None]:
    """Call a function again and again in another thread until the block ends.

    Args:
        pause: seconds before each call.
    """
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(pause):
            step()

    with in_a_thread(run, stop.set):
        yield


@contextmanager
def running(
    settings: Settings,
    spark: "SparkSession | None",
    url: str | None = None,
    *,
    errors: list[BaseException] | None = None,
) -> Iterator[list[str]]:
    """A stream that runs in a thread until the block ends; yields what it says.

    Args:
        spark: for a stream on Spark, the session that it shares.
        errors: takes what stops it. If it is not given, such an error is the test's.
    """
    said: list[str] = []
    stop = threading.Event()
    stream = Stream(
        settings,
        postgres_url=url or settings.postgres_url or "",
        kafka_bootstrap=settings.kafka_bootstrap or "",
        say=said.append,
        stop=stop,
        spark=spark,
    )
    with in_a_thread(stream.run, stop.set, errors=errors):
        yield said
