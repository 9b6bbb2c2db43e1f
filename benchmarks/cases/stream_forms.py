"""The embedded stream on messages other than those of `stream`, and on up to 50 million of them."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

from confluent_kafka.admin import NewTopic

from antenna_assets.domain.hours import HOUR
from antenna_assets.settings import PREFIX
from antenna_assets.simulator.events import Message
from antenna_assets.simulator.send import Target, send
from antenna_assets.stack.kafka_topic import admin_client, ensure_topic
from benchmarks.cases.stream import EVENTS_PER_HOUR, LONG_TOPIC, SHORT_TOPIC, USERS, sustained
from benchmarks.context import Context
from benchmarks.measure import ContenderFailed, Run, in_turns, run
from benchmarks.outcome import Claim, Measured, Outcome, Plot, Table, of_runs
from benchmarks.stream_data import messages
from benchmarks.world import PARTITIONS, fresh, last_full_hour

TITLE = "The stream on other messages, and on more"
GROWTH = (12_000_000, 50_000_000)
LARGE_MESSAGES, LARGE_BYTES = 2_000, 990_000
MANY_PARTITIONS = 48
MOST_GIB = 1.0


@dataclass(frozen=True)
class Form:
    """What is in a topic, and how.

    Attributes:
        least: the share of the first form's rate that the design asks for; None if it asks for none.
    """

    name: str
    partitions: int = PARTITIONS
    compression: str = "producer"
    mixed: bool = False
    poison: float = 0.0
    least: float | None = None


FORMS = (
    Form("the usual spelling"),
    Form("five spellings, 2 % with an escape", mixed=True, least=0.6),
    Form("10 % poison", poison=0.1, least=0.8),
    Form("48 partitions", partitions=MANY_PARTITIONS),
    Form("48 partitions, zstd", partitions=MANY_PARTITIONS, compression="zstd"),
)


def measure(context: Context) -> Outcome:
    """Read a short and a long topic of each form in turns, large messages, and topics up to 50 million."""
    sizes = [context.events(LONG_TOPIC)] if context.short else [SHORT_TOPIC, LONG_TOPIC]
    runs = {events: _read_in_turns(context, events) for events in sizes}
    tables = [Table(f"{events:,} events, whole process", "s", of_runs(done)) for events, done in runs.items()]
    large = _large(context)
    tables.append(
        Table(f"messages of 1 MB, {MANY_PARTITIONS} partitions, zstd", "s", of_runs({"all": [large]}))
    )
    peaks = [run.peak_bytes for done in runs.values() for of_form in done.values() for run in of_form]
    if context.short:
        return Outcome(tables)
    rates = sustained(runs[SHORT_TOPIC], runs[LONG_TOPIC])
    growth = {events: done[FORMS[0].name][-1] for events, done in runs.items()}
    growth |= {events: _read(context, _filled(context, FORMS[0], events), events) for events in GROWTH}
    tables.append(
        Table("growth, each once", "s", of_runs({f"{n:,} events": [one] for n, one in growth.items()}))
    )
    most = max(*peaks, large.peak_bytes, *(one.peak_bytes for one in growth.values())) / 2**30
    return Outcome(
        [Table("sustained", "events/s", rates), *tables],
        [
            *_claims(rates),
            Claim(f"all of these: at most {MOST_GIB:.0f} GiB", f"{most:.2f} GiB", most <= MOST_GIB),
        ],
        [
            Plot(title, "events", unit, {"ours": points}, logarithmic=True)
            for title, unit, points in (
                ("Time of a backlog", "seconds", [(n, one.seconds) for n, one in growth.items()]),
                ("Memory of a backlog", "GiB", [(n, one.peak_bytes / 2**30) for n, one in growth.items()]),
            )
        ],
    )


def _read_in_turns(context: Context, events: int) -> dict[str, list[Run]]:
    readings: dict[str, Callable[[], Run]] = {
        form.name: partial(_read, context, _filled(context, form, events), events) for form in FORMS
    }
    return in_turns(readings, rounds=context.rounds, say=context.say, warm_up=not context.short)


def _claims(rates: list[Measured]) -> Iterator[Claim]:
    usual, *others = rates
    for form, measured in zip(FORMS[1:], others, strict=True):
        if form.least is not None:
            found = measured.spread.median / usual.spread.median
            asked = f"{form.name}: at least {form.least:.0%} of the usual spelling's rate"
            yield Claim(asked, f"{found:.0%}", found >= form.least)


def _filled(context: Context, form: Form, events: int) -> str:
    context.say(f"sending {events:,} messages: {form.name}")
    span = HOUR * events / EVENTS_PER_HOUR
    options: dict[str, Any] = {"mixed": form.mixed, "poison": form.poison}
    sent = messages(events, users=USERS, start=last_full_hour() - max(HOUR, span), span=span, **options)
    return _topic(context, f"forms-{FORMS.index(form)}-{events}", form.partitions, form.compression, sent)


def _topic(context: Context, name: str, partitions: int, compression: str, sent: Iterable[Message]) -> str:
    bootstrap = context.environment()[f"{PREFIX}KAFKA_BOOTSTRAP"]
    settings = {"compression.type": compression, "message.timestamp.type": "LogAppendTime"}
    topic = NewTopic(name, num_partitions=partitions, config=settings)
    admin = admin_client(bootstrap)
    admin.create_topics([topic], operation_timeout=10)[name].result(20)
    ensure_topic(bootstrap, name)
    send(sent, Target(bootstrap, name))
    return name


def _large(context: Context) -> Run:
    """Read messages of a megabyte, most of which is a field that is no part of an event."""
    events = 20 if context.short else LARGE_MESSAGES
    begin, step = last_full_hour().timestamp(), timedelta(minutes=1).total_seconds() / events

    def large() -> Iterator[Message]:
        for number in range(events):
            more = f"{number:09}" * (LARGE_BYTES // 9)
            value = (
                f'{{"bytes":1,"timestamp":{begin + number * step:.3f},"app":"app","id":"user-{number}",'
                f'"antenna_id":"antenna","more":"{more}"}}'
            )
            yield Message(str(number).encode(), value.encode(), None, None)

    context.say(f"sending {events:,} messages of a megabyte")
    return _read(context, _topic(context, "forms-large", MANY_PARTITIONS, "zstd", large()), events)


_numbers = count()


def _read(context: Context, topic: str, events: int) -> Run:
    output = context.folder / f"forms-{next(_numbers)}"
    own = {**fresh(context.environment(), output), f"{PREFIX}TOPIC": topic}
    done = run(context.program("stream_antenna"), env=own, folder=context.folder)
    if done.figures["rows"] != events:
        raise ContenderFailed(
            f"expected {events} rows of {topic} in the ledger, found {done.figures['rows']}"
        )
    shutil.rmtree(output)
    return done
