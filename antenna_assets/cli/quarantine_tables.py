"""Rejected messages and the plan of a replay for a terminal.

Whatever a sender wrote is shown by `domain/safe_text.py`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table

from antenna_assets.domain.fitting_table import FittingTable
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.listing import and_more
from antenna_assets.domain.safe_text import hex_lines, safe_cell, safe_text
from antenna_assets.operations.quarantine.messages import ReasonSummary
from antenna_assets.operations.quarantine.replay import FAILED, Plan

EXAMPLE_LENGTH = 60
FAILURES_SHOWN = 20


def summary_table(summaries: Iterable[ReasonSummary]) -> Table:
    """The messages by reason, with the first one of each as an example."""
    table = FittingTable(
        "reason",
        Column("messages", justify="right"),
        "first, UTC",
        "last, UTC",
        Column("partition", justify="right"),
        Column("offset", justify="right"),
        Column("first message", overflow="fold"),
    )
    for summary in summaries:
        table.add_row(
            summary.reason,
            f"{summary.messages:,}",
            f"{summary.first:%Y-%m-%d %H:%M:%S}",
            f"{summary.last:%Y-%m-%d %H:%M:%S}",
            str(summary.partition),
            str(summary.offset),
            "no value" if summary.value is None else safe_cell(summary.value, EXAMPLE_LENGTH),
        )
    return table


def message_lines(message: Mapping[str, Any], replayed_by: int | None) -> Iterator[str]:
    """Yield one message as lines of text without markup: its origin, why it was rejected, and its bytes."""
    value: bytes | None = message["value"]
    facts = {
        "topic id": message["topic_id"],
        "partition": message["kafka_partition"],
        "offset": message["kafka_offset"],
        "Kafka time": message["kafka_timestamp"].isoformat(),
        "rejected by": f"batch {message['batch']}",
        "reason": message["reason"],
        "detail": safe_text(message["detail"] or ""),
        "state": "in quarantine" if replayed_by is None else f"replayed by batch {replayed_by}",
    }
    if value is None:
        facts["value"] = "none: Kafka held a message without one"
    else:
        facts |= {"size": f"{len(value):,} bytes", "value": safe_text(value)}
    for name, text in facts.items():
        yield f"{name:<12}{text}"
    for line in hex_lines(value or b""):
        yield f"  {line}"


def plan_tables(plan: Plan) -> Iterator[RenderableType]:
    """Yield what a replay would accept and what would stay in quarantine, and why."""
    yield _accepted(plan) if plan.hours else "no message is accepted"
    if plan.skipped:
        yield _skipped(plan)
    failures = [skipped for skipped in plan.skipped if skipped.reason == FAILED]
    for failure in failures[:FAILURES_SHOWN]:
        place = f"partition {failure.partition}, offset {failure.offset}"
        yield escape(f"the transformation failed at {place}: {safe_text(failure.detail)}")
    if rest := and_more(len(failures), FAILURES_SHOWN):
        yield f"... {rest}"


def _accepted(plan: Plan) -> Table:
    numbers = [Column(name, justify="right") for name in ("rows", "bytes")]
    table = FittingTable("hour", *numbers, "state", title="Accepted")
    for hour in plan.hours:
        state = "closed, published again" if hour.closed else "open"
        table.add_row(hour_key(hour.hour), f"{hour.rows:,}", f"{hour.bytes:,}", state)
    return table


def _skipped(plan: Plan) -> Table:
    table = FittingTable(
        "reason", Column("messages", justify="right"), "for example", title="Stays in quarantine"
    )
    for reason, count in plan.skipped_by_reason.items():
        first = next(skipped for skipped in plan.skipped if skipped.reason == reason)
        example = f"partition {first.partition}, offset {first.offset}: {safe_cell(first.detail)}"
        table.add_row(reason, f"{count:,}", example.removesuffix(": "))
    return table
