"""Judging in Spark: the rows of `Judge`, whatever the way to Python and back does to messages and times.

What the verdicts are is in `test_verdicts_rules.py`. All of a test's messages go through one Spark job.
"""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from antenna_assets.domain.schema import REASONS
from antenna_assets.streaming.envelope import MESSAGES
from antenna_assets.streaming.errors import first_line
from antenna_assets.streaming.spark import executors, worker
from antenna_assets.streaming.spark.executors import ExecutorsUnfit, prepare_executors, write_package
from antenna_assets.streaming.spark.judging import judged
from antenna_assets.streaming.verdicts.bounds import Bounds
from antenna_assets.streaming.verdicts.judged import Judge
from antenna_assets_tests.messages import CLOCK, OLDEST, TABLE, VALID, message
from antenna_assets_tests.random_messages import random_message

BOUNDS = Bounds(CLOCK, OLDEST)
RECORD_TIME = datetime(2026, 11, 22, 10, tzinfo=UTC)
COMPACT = VALID.replace(b" ", b"")


@pytest.fixture
def judging_spark(spark: SparkSession) -> SparkSession:
    session = spark.newSession()
    # Neither UTC nor full hours away: a value that depends on the session's zone shows.
    session.conf.set("spark.sql.session.timeZone", "America/St_Johns")
    return session


@pytest.fixture
def judge() -> Iterator[Judge]:
    found = Judge(threads=1)
    yield found
    found.close()


def batch(values: list[bytes | None], times: list[datetime] | None = None) -> pa.Table:
    count = len(values)
    columns = [values, [number % 4 for number in range(count)], range(count), times or [RECORD_TIME] * count]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, MESSAGES, strict=True)]
    return pa.table(arrays, schema=MESSAGES)


def rows_by_spark(spark: SparkSession, messages: pa.Table, bounds: Bounds = BOUNDS) -> list[dict]:
    """The rows in the order of the messages, instants in UTC."""
    found = judged(spark.createDataFrame(messages), bounds).toArrow()
    return in_order(found.cast(worker.JUDGED))


def rows_by_judge(judge: Judge, messages: pa.Table, bounds: Bounds = BOUNDS) -> list[dict]:
    found = judge.judge(messages, bounds)
    tables = (found.accepted, found.rejected)
    return in_order(pa.concat_tables(tables, promote_options="default").select(worker.JUDGED.names))


def in_order(table: pa.Table) -> list[dict]:
    return sorted(table.to_pylist(), key=lambda row: row["kafka_offset"])


@pytest.mark.services
def test_the_table_has_the_rows_of_the_judge_with_and_without_layouts(
    judging_spark: SparkSession, judge: Judge
) -> None:
    values = [value for value, _ in TABLE.values()]
    # Enough of the usual layouts for each of Spark's tasks to learn them.
    messages = batch([*values, *[VALID, COMPACT] * 3_000, *values])
    rows = rows_by_spark(judging_spark, messages)
    assert rows == rows_by_judge(judge, messages)
    assert {row["reason"] for row in rows} == {None, *REASONS}


@pytest.mark.services
def test_hours_and_full_hours_are_utcs(judging_spark: SparkSession) -> None:
    times = ["1795341599.999999", "1795341600", '"2026-11-22T00:10:00+02:00"', "1", "1795338000"]
    bounds = Bounds(CLOCK, OLDEST, [datetime(2026, 11, 22, 9, tzinfo=UTC)])
    rows = rows_by_spark(judging_spark, batch([message(timestamp=time) for time in times]), bounds)
    assert [(row["hour"], row["reason"]) for row in rows] == [
        (None, "bytes_out_of_range"),
        ("2026112210", None),
        ("2026112122", None),
        (None, "timestamp_too_old"),
        (None, "bytes_out_of_range"),
    ]


@pytest.mark.services
def test_record_times_are_clamped_to_the_years_that_readers_have(judging_spark: SparkSession) -> None:
    kafka = "SELECT CAST(NULL AS BINARY) AS value, 0 AS partition, id AS offset, timestamp_micros({}) AS timestamp"
    micros = "CASE id WHEN 0 THEN -9223372036854775808L WHEN 1 THEN 5 ELSE 9223372036854775807L END"
    messages = judging_spark.sql(f"{kafka.format(micros)} FROM range(3)")
    found = judged(messages, BOUNDS).toArrow().cast(worker.JUDGED)
    assert [row["kafka_timestamp"] for row in in_order(found)] == [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1970, 1, 1, microsecond=5, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
    ]


@pytest.mark.services
def test_messages_of_ten_megabytes_are_judged_among_others(judging_spark: SparkSession, judge: Judge) -> None:
    long = VALID[:-1] + b',"x":"' + b"x" * 10_000_000 + b'"}'
    messages = batch([VALID, long, None, b"[" * 10_000_000, VALID])
    rows = rows_by_spark(judging_spark, messages)
    assert rows == rows_by_judge(judge, messages)
    assert [row["reason"] for row in rows] == [None, None, "blank", "not_json", None]


@pytest.mark.services
@pytest.mark.rounds(33)
@pytest.mark.timeout(600)
def test_row_11_damaged_messages_have_the_rows_of_the_judge_on_spark(
    judging_spark: SparkSession,
    judge: Judge,
    round_: int,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    rng = random.Random(f"judging {round_}")
    count = 30_400 if proving else 8_000
    messages = batch([random_message(rng) for _ in range(count)])
    rows = rows_by_spark(judging_spark, messages)
    assert rows == rows_by_judge(judge, messages)
    counts = Counter(row["reason"] for row in rows)
    assert counts.total() == count
    # A generator that stops reaching a verdict proves nothing about it.
    assert set(counts) == {None, *REASONS}
    record_property("messages", count)
    record_property("accepted", counts[None])
    record_property("rows that differ from the embedded reader's", 0)


@pytest.mark.services
def test_what_a_python_of_spark_raised_is_named(
    judging_spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_batches: object, bounds: Bounds) -> None:
        raise RuntimeError(f"no verdicts before {bounds.oldest:%Y}")

    monkeypatch.setattr("antenna_assets.streaming.spark.judging.judge_batches", fail)
    with pytest.raises(PySparkException) as raised:
        judged(judging_spark.createDataFrame(batch([VALID])), BOUNDS).collect()
    assert first_line(raised.value) == f"RuntimeError: no verdicts before {OLDEST:%Y}"


def test_a_worker_keeps_the_layouts_that_it_has_learned() -> None:
    worker._judge.cache_clear()
    messages = batch([COMPACT] * 2_000).to_batches()
    assert sum(rows.num_rows for rows in worker.judge_batches(iter(messages), BOUNDS)) == 2_000
    assert len(worker._judge().layouts) == 1
    assert next(worker.judge_batches(iter(messages), BOUNDS)).num_rows == 2_000
    worker._judge().close()
    worker._judge.cache_clear()


IN_AN_EXECUTOR = """
import sys
sys.path.insert(0, sys.argv[1])
from datetime import UTC, datetime
import antenna_assets
assert antenna_assets.__file__.startswith(sys.argv[1]), antenna_assets.__file__
from antenna_assets.streaming.spark.worker import Bounds, MESSAGES, judge_batches, pa
epoch = datetime.fromtimestamp(0, UTC)
table = pa.table([[b"{}"], [0], [0], [epoch]], schema=MESSAGES)
(found,) = judge_batches(iter(table.to_batches()), Bounds(epoch, epoch))
foreign = {name.partition(".")[0] for name, module in sys.modules.items()
    if "site-packages" in (getattr(module, "__file__", None) or "")}
# The others are loaded where they are installed: by pyarrow for datetimes, and by setuptools.
print(found["reason"][0], *sorted(foreign - {"dateutil", "six", "_distutils_hack"}))
"""


def test_an_executor_needs_the_package_that_the_stream_sends_it_pyarrow_and_duckdb(tmp_path: Path) -> None:
    write_package(tmp_path / "package.zip")
    command = (sys.executable, "-c", IN_AN_EXECUTOR, str(tmp_path / "package.zip"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "missing_field _duckdb duckdb pyarrow\n"


def test_executors_that_cannot_judge_end_the_start_with_what_they_lack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Failing:
        def collect(self) -> None:
            raise PySparkException(
                "Traceback (most recent call last):\nModuleNotFoundError: No module named 'duckdb'\n"
            )

    monkeypatch.setattr(executors, "judged", lambda _messages, _bounds: Failing())
    monkeypatch.setattr("pyspark.SparkFiles.getRootDirectory", lambda: str(tmp_path))
    sent: list[str] = []
    context = SimpleNamespace(master="spark://host:7077", addPyFile=sent.append, pythonExec="/opt/bin/python")
    cluster = SimpleNamespace(sparkContext=context, sql=lambda _text: None)
    with pytest.raises(ExecutorsUnfit, match="No module named 'duckdb'; their Python is /opt/bin/python "):
        prepare_executors(cluster)  # type: ignore[arg-type]
    assert sent == [str(tmp_path / "antenna_assets.zip")]
    # One process has one Python.
    prepare_executors(SimpleNamespace(sparkContext=SimpleNamespace(master="local[*]")))  # type: ignore[arg-type]
