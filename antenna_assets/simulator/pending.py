"""What must happen before the tables can equal the answers: messages to read, hours to publish."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from antenna_assets.domain.counted import counted
from antenna_assets.simulator.answers import Answers

if TYPE_CHECKING:
    from psycopg import Connection

HOURLY = ("bytes_agg_antenna_1h", "bytes_agg_user_1h", "bytes_agg_app_1h", "users_over_quota_1h")

_HOUR = timedelta(hours=1)
_JOB = "run the job `hourly_usage` for them (the sensor `closed_hours` does, or `dagster job execute`)"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the answers say, in words for a reader."""

    table: str
    key: str
    expected: str
    found: str


def unread(answers: Answers, connection: "Connection") -> Iterator[Difference]:
    """Yield what was sent and is not committed yet."""
    if answers.sent is None:
        yield Difference(
            "ledger",
            "sent",
            "the offsets of the messages in Kafka",
            "an answers file of messages that were never sent",
        )
        return
    topic, topic_id = answers.sent["topic"], answers.sent["topic_id"]
    committed: dict[int, int] = dict(
        connection.execute(
            "SELECT partition, max(until_offset) FROM ledger.batch_offset WHERE topic_id = %s"
            " GROUP BY partition",
            [topic_id],
        ).fetchall()
    )
    unread = sum(
        max(0, end - max(first, committed.get(int(partition), 0)))
        for partition, (first, end) in answers.sent["offsets"].items()
    )
    if unread:
        yield Difference(
            "ledger",
            f"topic {topic} (id {topic_id})",
            "every sent message read",
            f"the stream has not read {counted(unread, 'message')} yet: run `antenna stream --available-now`",
        )


def unpublished(answers: Answers, connection: "Connection") -> dict[str, set[datetime]]:
    """Return by hourly table the hours with events that were never published there."""
    hours = {instant(row["hour"]) for row in answers.hours() if row["rows"]}
    published = connection.execute(
        "SELECT asset, hour FROM ledger.publication_head WHERE hour = ANY(%s)", [sorted(hours)]
    ).fetchall()
    missing = {table: hours - {hour for asset, hour in published if asset == table} for table in HOURLY}
    return {table: hours for table, hours in missing.items() if hours}


def unpublished_hours(missing: dict[str, set[datetime]]) -> Iterator[Difference]:
    """Yield the result of `unpublished`, with one difference for all tables that lack the same hours."""
    by_hours: dict[tuple[datetime, ...], list[str]] = {}
    for table, hours in missing.items():
        by_hours.setdefault(tuple(sorted(hours)), []).append(table)
    for gap, tables in by_hours.items():
        text = ", ".join(span(first, end) for first, end in spans(gap))
        yield Difference(
            ", ".join(tables),
            text,
            "published",
            f"{counted(len(gap), 'hour is', 'hours are')} not published: {_JOB}",
        )


def outdated(answers: Answers, connection: "Connection") -> Iterator[Difference]:
    """Yield hours that have rows newer than their publication, or a publication that was not finished."""
    hours = [instant(row["hour"]) for row in answers.hours()]
    late = connection.execute(
        """
        SELECT hour FROM ledger.hour_state AS state
        WHERE hour = ANY(%s)
          AND EXISTS (SELECT FROM ledger.publication_head AS head
                      WHERE head.hour = state.hour AND (state.dirty OR head.generation < state.generation))
        ORDER BY 1
        """,
        [hours],
    ).fetchall()
    if late:
        text = ", ".join(span(first, end) for first, end in spans(hour.astimezone(UTC) for (hour,) in late))
        yield Difference(
            "ledger", text, "published with all rows", f"rows landed after the publication: {_JOB}"
        )
    unfinished = connection.execute(
        "SELECT hour FROM ledger.hour_state AS state WHERE hour = ANY(%s) AND NOT dirty AND hour <> ALL(%s)"
        " AND EXISTS (SELECT FROM ledger.unsettled_publication AS unsettled"
        "  WHERE unsettled.hour = state.hour) ORDER BY 1",
        [hours, [hour for (hour,) in late]],
    ).fetchall()
    if unfinished:
        text = ", ".join(
            span(first, end) for first, end in spans(hour.astimezone(UTC) for (hour,) in unfinished)
        )
        yield Difference("ledger", text, "wholly published", f"a publication was not finished: {_JOB}")


def spans(hours: Iterable[datetime]) -> list[tuple[datetime, datetime]]:
    """Group ascending hours into spans without a gap: their begin, and their end, exclusive."""
    found: list[tuple[datetime, datetime]] = []
    for hour in hours:
        if found and found[-1][1] == hour:
            found[-1] = (found[-1][0], hour + _HOUR)
        else:
            found.append((hour, hour + _HOUR))
    return found


def span(first: datetime, end: datetime) -> str:
    """Name a span by the partition keys of its first and last hour."""
    last = end - _HOUR
    text = f"{first:%Y-%m-%d-%H:%M}"
    return text if first == last else f"{text} to {last:%Y-%m-%d-%H:%M}"


def instant(text: str) -> datetime:
    """Return the instant of a date in an answers file."""
    return datetime.fromisoformat(text)
