"""What every serving table must hold after some messages: sums of plain Python integers in dictionaries.

Independent of the pipeline: tables and columns are declared here once more, so that the two can disagree. The
file of answers is in `answers_file`, the comparison in `compare`.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from antenna_assets.errors import AntennaError
from antenna_assets.simulator.events import Event, Message, Scenario

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HOUR = 3_600_000_000

Row = dict[str, Any]
"""A row by column name. `date` is text, ISO-8601 in UTC, as `2026-11-22T10:05:00Z`."""


class AnswersError(AntennaError):
    """Answers cannot be read or added to; the message says what was found and what to do."""


class KnownUser(NamedTuple):
    """A user's row of `user_metadata`. `quota` is in bytes per hour; None: unlimited."""

    email: str
    quota: int | None


def known_users(path: Path) -> dict[str, KnownUser]:
    """Read the users of a CSV file with the columns id, name, email and quota, by id."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["id"]: KnownUser(row["email"], int(row["quota"]) if row["quota"] else None)
            for row in csv.DictReader(file)
        }


class Answers:
    """The expected content of the tables after all messages that were counted so far.

    Args:
        users: e-mail and quota of every user in `user_metadata`, by id.
        window: the length of a live window, which divides an hour.
        scenario: what was simulated, for readers of the file.
    """

    def __init__(
        self,
        users: Mapping[str, tuple[str, int | None]],
        *,
        window: timedelta = timedelta(minutes=5),
        scenario: Scenario | Mapping[str, Any] | None = None,
    ) -> None:
        self.window = window
        self._window = window // _MICROSECOND
        if self._window <= 0 or _HOUR % self._window:
            raise AnswersError(f"window: expected a length that divides an hour, found {window}")
        self.users = {id_: KnownUser(*user) for id_, user in users.items()}
        self.scenario = _plain(scenario) if isinstance(scenario, Scenario) else dict(scenario or {})
        self.sent: Row | None = None
        self.rejected: Counter[str] = Counter()
        self.unknown_user_rows = 0
        self._rows: Counter[int] = Counter()
        self._antennas: defaultdict[tuple[int, str], int] = defaultdict(int)
        self._ids: defaultdict[tuple[int, str], int] = defaultdict(int)
        self._apps: defaultdict[tuple[int, str], int] = defaultdict(int)
        if isinstance(scenario, Scenario):
            first = (scenario.start - _EPOCH) // _MICROSECOND
            # Hours without events are part of the answers: they must have no rows.
            self._rows.update({first + number * _HOUR: 0 for number in range(scenario.hours)})

    def add(self, event: Event) -> None:
        """Count an event that must be stored."""
        time, app, id_, antenna, size = event
        start = time - time % self._window
        self._rows[time - time % _HOUR] += 1
        self._antennas[start, antenna] += size
        self._ids[start, id_] += size
        self._apps[start, app] += size
        if id_ not in self.users:
            self.unknown_user_rows += 1

    def counted(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Count the messages while they are passed on."""
        add, rejected = self.add, self.rejected
        for message in messages:
            if message.event is not None:
                add(message.event)
            else:
                rejected[str(message.reason)] += 1
            yield message

    def record(self, topic: str, topic_id: str, offsets: Mapping[int, tuple[int, int]]) -> None:
        """Record the offsets of the messages in Kafka: by partition, the first one and the one after the
        last.

        Raises:
            AnswersError: earlier messages were sent to another topic.
        """
        ranges = {str(partition): list(span) for partition, span in offsets.items()}
        if self.sent is not None:
            if self.sent["topic_id"] != topic_id:
                raise AnswersError(
                    f"these answers are about topic {self.sent['topic']} (id {self.sent['topic_id']}),"
                    f" and the messages were sent to {topic} (id {topic_id}); write the answers to a new file"
                )
            for partition, (first, end) in self.sent["offsets"].items():
                known = ranges.setdefault(partition, [first, end])
                ranges[partition] = [min(first, known[0]), max(end, known[1])]
        offsets_in_order = dict(sorted(ranges.items(), key=lambda item: int(item[0])))
        self.sent = {"topic": topic, "topic_id": topic_id, "offsets": offsets_in_order}

    def hours(self) -> list[Row]:
        """Return rows and bytes of every hour, the simulated hours without events included."""
        sums = _hourly(self._apps)
        sizes: Counter[int] = Counter()
        for (hour, _app), size in sums.items():
            sizes[hour] += size
        return [
            {"hour": _text(hour), "rows": self._rows[hour], "bytes": sizes[hour]}
            for hour in sorted(self._rows)
        ]

    def tables(self) -> dict[str, list[Row]]:
        """Return the rows of each serving table, ascending by date and key."""
        hourly_ids = _hourly(self._ids)
        users = _rows(hourly_ids, "id", "sum_user_bytes")
        for row in users:
            user = self.users.get(row["id"])
            row["email"] = user.email if user else None
        over = [
            {
                "date": row["date"],
                "id": row["id"],
                "email": user.email,
                "quota": user.quota,
                "sum_user_bytes": size,
            }
            for row in users
            if (user := self.users.get(row["id"])) is not None
            and user.quota is not None
            and (size := row["sum_user_bytes"]) > user.quota
        ]
        return {
            "bytes_agg_antenna": _rows(self._antennas, "antenna_id", "sum_antenna_bytes"),
            "bytes_agg_user": _rows(self._ids, "id", "sum_user_bytes"),
            "bytes_agg_app": _rows(self._apps, "app", "sum_app_bytes"),
            "bytes_agg_antenna_1h": _rows(_hourly(self._antennas), "antenna_id", "sum_antenna_bytes"),
            "bytes_agg_user_1h": users,
            "bytes_agg_app_1h": _rows(_hourly(self._apps), "app", "sum_app_bytes"),
            "users_over_quota_1h": over,
        }

    def document(self) -> Row:
        """Return everything as JSON values; `restored` is the inverse."""
        return {
            "scenario": self.scenario,
            "window_seconds": self._window // 1_000_000,
            "sent": self.sent,
            "hours": self.hours(),
            "rejected": dict(sorted(self.rejected.items())),
            "unknown_user_rows": self.unknown_user_rows,
            "users": {id_: list(user) for id_, user in sorted(self.users.items())},
            "tables": self.tables(),
        }

    @classmethod
    def restored(cls, document: Row) -> "Answers":
        """The answers of a document; more messages can be added to them."""
        window = timedelta(seconds=document["window_seconds"])
        answers = cls(document["users"], window=window, scenario=document["scenario"])
        answers.sent = document["sent"]
        answers.rejected.update(document["rejected"])
        answers.unknown_user_rows = document["unknown_user_rows"]
        answers._rows.update({_micros(row["hour"]): row["rows"] for row in document["hours"]})
        # The hourly sums follow from the live windows.
        for name, key, column, sums in (
            ("bytes_agg_antenna", "antenna_id", "sum_antenna_bytes", answers._antennas),
            ("bytes_agg_user", "id", "sum_user_bytes", answers._ids),
            ("bytes_agg_app", "app", "sum_app_bytes", answers._apps),
        ):
            for row in document["tables"][name]:
                sums[_micros(row["date"]), row[key]] = row[column]
        return answers


def _hourly(sums: Mapping[tuple[int, str], int]) -> dict[tuple[int, str], int]:
    hourly: defaultdict[tuple[int, str], int] = defaultdict(int)
    for (start, key), size in sums.items():
        hourly[start - start % _HOUR, key] += size
    return hourly


def _rows(sums: Mapping[tuple[int, str], int], key: str, column: str) -> list[Row]:
    texts = {start: _text(start) for start, _name in sums}
    return [{"date": texts[start], key: name, column: size} for (start, name), size in sorted(sums.items())]


def _text(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")


def _micros(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


def _plain(scenario: Scenario) -> Row:
    start = scenario.start.isoformat().replace("+00:00", "Z")
    return {**asdict(scenario), "start": start, "apps": list(scenario.apps)}
