"""The two readers of the stream as parameters of tests, and what tests change in both of them."""

from collections.abc import Callable

import pytest

EACH_ENGINE = pytest.mark.parametrize("stream_engine", ["duckdb", "spark"], indirect=True)
"""For tests of what every reader promises: `settings` name the one, and streams use it."""

EACH_ENGINE_IN_THE_LONG_FORM = pytest.mark.each_engine_in_the_long_form
"""The same for tests that start a Spark of their own, or take long with it: the suite runs them embedded."""

SPARK = pytest.mark.parametrize("stream_engine", ["spark"], indirect=True)
"""For tests of the Spark reader alone."""

EMBEDDED = pytest.mark.parametrize("stream_engine", ["duckdb"], indirect=True)
"""For tests of the embedded reader alone."""


def limit_batches(monkeypatch: pytest.MonkeyPatch, messages: int) -> None:
    """Let the micro-batches of both readers have at most so many messages."""
    from antenna_assets.streaming.embedded import batches
    from antenna_assets.streaming.spark import query

    monkeypatch.setattr(batches, "MESSAGES_PER_BATCH", messages)
    monkeypatch.setattr(query, "MESSAGES_PER_BATCH", messages)


def after_each_landing(monkeypatch: pytest.MonkeyPatch, call: Callable[[str], None]) -> None:
    """Call with the attempt's folder once the files of a micro-batch are written, by either reader."""
    from antenna_assets.streaming.embedded.land import Lander
    from antenna_assets.streaming.read_back import WrittenAttempt
    from antenna_assets.streaming.spark import micro_batch

    by_spark, embedded = micro_batch.write, Lander.write

    def write_with_spark(*arguments: object, **named: object) -> WrittenAttempt:
        written = by_spark(*arguments, **named)  # type: ignore[arg-type]
        call(written.folder)
        return written

    def write_embedded(lander: Lander, folder: str, *tables: object) -> None:
        embedded(lander, folder, *tables)  # type: ignore[arg-type]
        call(folder)

    monkeypatch.setattr(micro_batch, "write", write_with_spark)
    monkeypatch.setattr(Lander, "write", write_embedded)
