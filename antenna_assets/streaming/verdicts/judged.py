"""Judging batches of messages: usual ones are cut and verified by DuckDB, all others judged one by one."""

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.domain.hours import EPOCH, HOUR
from antenna_assets.domain.landing import LANDING_FORMAT
from antenna_assets.domain.schema import LANDED_SCHEMA, REJECTED_SCHEMA, TIMESTAMP
from antenna_assets.streaming.verdicts.bounds import HOUR_MICROS, Bounds
from antenna_assets.streaming.verdicts.cutting import query
from antenna_assets.streaming.verdicts.layouts import SAMPLE_BYTES, Layout, Layouts
from antenna_assets.streaming.verdicts.rules import Event, judge

ACCEPTED_SCHEMA = LANDED_SCHEMA.append(pa.field("hour", pa.string(), nullable=False))
"""Landed events, and the hour (UTC) of each as landing folders name it: `2026112210`."""

FEW = 1_000
"""As many messages are judged one by one before DuckDB has planned a query."""

SAMPLE = 200
"""The most messages of a batch that layouts are learned from."""

CHUNK = 10 * 2_048
"""Messages that a thread of DuckDB takes at a time: whole vectors."""

MEMORY = "512MiB"
"""Of DuckDB; the results are not part of it."""


@dataclass(frozen=True)
class Judged:
    """The verdicts on the messages of a batch, in no order.

    Attributes:
        accepted: with `ACCEPTED_SCHEMA`.
        rejected: with `REJECTED_SCHEMA`.
    """

    accepted: pa.Table
    rejected: pa.Table


class Judge:
    """Judges the batches of a stream, one after the other, and learns how their senders write.

    It is for one thread at a time. What it has learned changes no verdict, only how long one takes.

    Args:
        threads: of DuckDB; None means one per core.
    """

    def __init__(self, threads: int | None = None) -> None:
        import duckdb

        config: dict[str, Any] = {
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "preserve_insertion_order": False,
            "memory_limit": MEMORY,
            # Nothing in the query grows with the batch, so it never spills.
            "temp_directory": "",
        }
        if threads is not None:
            config["threads"] = threads
        self._connection = duckdb.connect(config=config)
        self._layouts = Layouts()
        self._random = Random(0)

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The layouts that are known."""
        return self._layouts.known

    def close(self) -> None:
        """Free the connection."""
        self._connection.close()

    def judge(self, messages: pa.Table, bounds: Bounds) -> Judged:
        """The verdict on each message.

        Args:
            messages: with the columns of `envelope.MESSAGES`.
            bounds: the same for all of them.
        """
        accepted: list[pa.Table] = []
        rest = messages
        used: Counter = Counter()
        # Once with what is known, and once with what the rest of a large batch teaches.
        known = bool(self._layouts.known)
        for learned in (False, True):
            if rest.num_rows <= FEW:
                break
            if not (self._learn(rest) if learned else known):
                continue
            taken, rest = self._cut(rest, bounds, used)
            accepted.append(taken)
        self._layouts.record(used)
        events, rejected = _one_by_one(rest, bounds)
        return Judged(pa.concat_tables([*accepted, events]), rejected)

    def _learn(self, messages: pa.Table) -> bool:
        """Learn layouts from some of the messages; returns whether there is any new one."""
        # Not every n-th: senders that take turns would never be seen.
        count = min(SAMPLE, messages.num_rows)
        places = sorted(self._random.sample(range(messages.num_rows), count))
        values = messages["value"].take(pa.array(places, pa.int64())).to_pylist()
        plain = (value for value in values if value is not None and len(value) <= SAMPLE_BYTES)
        return self._layouts.learn(plain, messages.num_rows / count)

    def _cut(self, messages: pa.Table, bounds: Bounds, used: Counter) -> tuple[pa.Table, pa.Table]:
        """The events among messages of known layouts, and all other messages."""
        layouts = self._layouts.known
        self._connection.register("messages", _with_text(messages))
        try:
            found = self._connection.sql(
                query(layouts, bounds.full_hours),
                params=[max(0, bounds.oldest_micros), max(0, bounds.newest_micros)],
            ).to_arrow_table()
        finally:
            self._connection.unregister("messages")
        for count in pc.value_counts(found["layout"]):
            if count["values"].is_valid:
                used[layouts[count["values"].as_py()]] += count["counts"].as_py()
        rest = messages.slice(0, 0)
        if found["layout"].null_count:
            rest = messages.take(found["row"].filter(found["layout"].is_null()))
            found = found.filter(found["layout"].is_valid())
        columns = {
            **{name: found[name] for name in ("app", "id", "antenna_id", "bytes")},
            "timestamp": found["micros"].cast(TIMESTAMP),
            "kafka_partition": found["partition"],
            "kafka_offset": found["offset"],
            "hour": _hours(found["hours"]),
        }
        return pa.table([columns[name] for name in ACCEPTED_SCHEMA.names], schema=ACCEPTED_SCHEMA), rest


def _with_text(messages: pa.Table) -> pa.Table:
    """What the query needs of the messages."""
    # Without a check of UTF-8, which ASCII does not need; the query looks at no other text.
    text = messages["value"].cast(pa.string(), safe=False)
    printable = pc.ascii_is_printable(text)
    ascii_ = printable if pc.all(printable).as_py() else pc.string_is_ascii(text)
    row = pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), messages.num_rows), start=-1)
    table = pa.table(
        {
            "bytes_as_text": text,
            "ascii": ascii_,
            "printable": printable,
            "partition": messages["partition"],
            "offset": messages["offset"],
            "row": row,
        }
    )
    return pa.Table.from_batches(table.to_batches(max_chunksize=CHUNK), table.schema)


def _hours(hours: pa.ChunkedArray) -> pa.ChunkedArray:
    """The hours (since 1970) as landing folders name them: text is made for each only once."""
    encoded = hours.dictionary_encode().unify_dictionaries()
    chunks = [
        pa.DictionaryArray.from_arrays(
            chunk.indices, pa.array([_hour_text(hour) for hour in chunk.dictionary.to_pylist()], pa.string())
        ).cast(pa.string())
        for chunk in encoded.chunks
    ]
    return pa.chunked_array(chunks, pa.string())


def _hour_text(hour: int) -> str:
    return (EPOCH + hour * HOUR).strftime(LANDING_FORMAT)


def _one_by_one(messages: pa.Table, bounds: Bounds) -> tuple[pa.Table, pa.Table]:
    """The accepted and the rejected messages, by the strict function."""
    events, rejections = [], []
    hours: dict[int, str] = {}
    columns = (messages[name].to_pylist() for name in ("value", "partition", "offset"))
    times = messages["timestamp"].cast(pa.int64()).to_pylist()
    for value, partition, offset, time in zip(*columns, times, strict=True):
        verdict = judge(value, bounds)
        if isinstance(verdict, Event):
            number = verdict.micros // HOUR_MICROS
            hour = hours.get(number) or hours.setdefault(number, _hour_text(number))
            events.append((*verdict, partition, offset, hour))
        else:
            rejections.append((value, *verdict, partition, offset, time))
    return _table(events, ACCEPTED_SCHEMA), _table(rejections, REJECTED_SCHEMA)


def _table(rows: list[tuple], schema: pa.Schema) -> pa.Table:
    """Rows in the order of the schema; instants are microseconds."""
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [
        pa.array(column, pa.int64() if field.type == TIMESTAMP else field.type).cast(field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)
