"""The messages of the stream: plain JSON that every contender can read, ordered by time.

The simulator's unusual but valid forms are left out: peers would drop them or need extra code.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import duckdb

from antenna_assets.simulator.events import Message
from benchmarks.hour_data import events_select, uniform

CHUNK = 100_000
USUAL = '{{"bytes":{0},"timestamp":{1:.3f},"app":"{2}","id":"{3}","antenna_id":"{4}"}}'
"""In the syntax of DuckDB's `format`, of bytes, Unix seconds, app, user and antenna."""

SPELLINGS = (
    USUAL,
    '{{"bytes": {0}, "timestamp": {1:.6f}, "app": "{2}", "id": "{3}", "antenna_id": "{4}"}}',
    '{{"antenna_id":"{4}","app":"{2}","bytes":{0},"id":"{3}","timestamp":{1:.3f}}}',
    '{{"v":2,"id":"{3}","antenna_id":"{4}","app":"{2}","cell":"7f-0a","timestamp":{1:.0f},"bytes":{0}}}',
    '{{ "timestamp" : {1:.3f} , "id" : "{3}" , "antenna_id" : "{4}" , "app" : "{2}" , "bytes" : {0} }}',
)
"""As five senders may write an event: fields in another order, with white space, with further fields."""

ESCAPED = '{{"bytes":{0},"timestamp":{1:.3f},"app":"caf\\u00e9 {2}","id":"{3}","antenna_id":"{4}"}}'
ESCAPED_SHARE = 0.02

POISON = (
    '{{"bytes":{0},"timestamp":{1:.3f},"app":"{2}","id":"{3}"',
    '{{"bytes":{0},"timestamp":{1:.3f},"app":"{2}","id":"{3}"}}',
    '{{"bytes":"{0}","timestamp":{1:.3f},"app":"{2}","id":"{3}","antenna_id":"{4}"}}',
    '{{"bytes":-{0},"timestamp":{1:.3f},"app":"","id":"{3}","antenna_id":"{4}"}}',
    "<event><bytes>{0}</bytes><time>{1:.3f}</time><app>{2}</app><user>{3}</user></event>",
)
"""Cut off, without a field, a number as text, two faults in one, and another format."""

JITTER_SECONDS = 2
"""How late an event may be, as by queues on the way to Kafka."""


def messages(
    count: int, *, users: int, start: datetime, span: timedelta, mixed: bool = False, poison: float = 0.0
) -> Iterator[Message]:
    """Yield `count` messages spread evenly over the `span` from `start`, keyed by user.

    Args:
        mixed: in all `SPELLINGS` alike, and `ESCAPED_SHARE` of them with an escape.
        poison: the share of messages that are rejected.
    """
    begin, step = start.timestamp(), span.total_seconds() / count
    time = f"greatest({begin}, {begin} + i * {step} - {JITTER_SECONDS} * {uniform(9)})"
    values = f"bytes, {time}, app, id, antenna_id"
    spelling = f"CASE {_one_of(SPELLINGS, values)} END" if mixed else _format(USUAL, values)
    if mixed:
        spelling = (
            f"CASE WHEN {uniform(12)} < {ESCAPED_SHARE} THEN {_format(ESCAPED, values)} ELSE {spelling} END"
        )
    if poison:
        spelling = (
            f"CASE WHEN {uniform(10)} < {poison} THEN CASE {_one_of(POISON, values)} END ELSE {spelling} END"
        )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for first in range(0, count, CHUNK):
            size = min(CHUNK, count - first)
            rows = connection.execute(
                f"SELECT id, {spelling} FROM ({events_select(first, size, users=users)})"
            ).fetchall()
            for key, value in rows:
                yield Message(key.encode(), value.encode(), None, None)


def _one_of(forms: Sequence[str], values: str) -> str:
    """Return the branches of a CASE that gives each form the same share of messages."""
    share = f"floor({len(forms)} * {uniform(11)})"
    return " ".join(
        f"WHEN {share} = {place} THEN {_format(form, values)}" for place, form in enumerate(forms)
    )


def _format(form: str, values: str) -> str:
    return f"format('{form}', {values})"
