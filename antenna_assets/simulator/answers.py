"""What every serving table must hold after these messages, computed the plain way: Python integers in dictionaries.

It shares no code with the pipeline, tables and columns are written out once more, so that the two can disagree.
Comparing them is `compare`.
"""

import csv
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from antenna_assets.errors import AntennaError
from antenna_assets.simulator.events import Event, Message, Scenario

FORMAT = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HOUR = 3_600_000_000

Row = dict[str, Any]
"""A row by column name. `date` is text, ISO-8601 in UTC, as `2026-11-22T10:05:00Z`."""


class AnswersError(AntennaError):
    """An answers file cannot be read or added to; the message says what was found and what to do."""


class KnownUser(NamedTuple):
    """What `user_metadata` says of a user. `quota` is bytes per hour; None: unlimited."""

    email: str
    quota: int | None


def known_users(path: Path) -> dict[str, KnownUser]:
    """The users of a CSV file with the columns id, name, email and quota, by id."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["id"]: KnownUser(row["email"], int(row["quota"]) if row["quota"] else None)
            for row in csv.DictReader(file)
        }


class Answers:
    """The expected content of the tables, for all messages given so far.

    Args:
        users: email and quota of every user that `user_metadata` holds, by id.
        window: the length of a live window; divides an hour.
        scenario: what was simulated, for a reader of the file.
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
            # A quiet hour belongs to the answer: it must have no rows.
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
        """Pass the messages on, each counted on its way."""
        add, rejected = self.add, self.rejected
        for message in messages:
            if message.event is not None:
                add(message.event)
            else:
                rejected[str(message.reason)] += 1
            yield message

    def record(self, topic: str, topic_id: str, offsets: Mapping[int, tuple[int, int]]) -> None:
        """Note where the messages lie in Kafka: by partition, the first offset and the one after the last.

        Raises:
            AnswersError: earlier messages of these answers went to another topic.
        """
        ranges = {str(partition): list(span) for partition, span in offsets.items()}
        if self.sent is not None:
            if self.sent["topic_id"] != topic_id:
                raise AnswersError(
                    f"these answers are about topic {self.sent['topic']} (id {self.sent['topic_id']}), and the messages"
                    f" went to {topic} (id {topic_id}); write the answers to a new file"
                )
            for partition, (first, end) in self.sent["offsets"].items():
                known = ranges.setdefault(partition, [first, end])
                ranges[partition] = [min(first, known[0]), max(end, known[1])]
        offsets_in_order = dict(sorted(ranges.items(), key=lambda item: int(item[0])))
        self.sent = {"topic": topic, "topic_id": topic_id, "offsets": offsets_in_order}

    def hours(self) -> list[Row]:
        """Rows and bytes of every hour, the simulated hours without events included."""
        sums = _hourly(self._apps)
        sizes: Counter[int] = Counter()
        for (hour, _app), size in sums.items():
            sizes[hour] += size
        return [
            {"hour": _text(hour), "rows": self._rows[hour], "bytes": sizes[hour]}
            for hour in sorted(self._rows)
        ]

    def tables(self) -> dict[str, list[Row]]:
        """The rows of each serving table, ascending by date and key."""
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

    def write(self, path: Path) -> None:
        """Write the answers as JSON, a row per line; a reader sees the old file or the whole new one."""
        document = {
            "format": FORMAT,
            "scenario": self.scenario,
            "window_seconds": self._window // 1_000_000,
            "sent": self.sent,
            "hours": self.hours(),
            "rejected": dict(sorted(self.rejected.items())),
            "unknown_user_rows": self.unknown_user_rows,
            "users": {id_: list(user) for id_, user in sorted(self.users.items())},
        }
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in document.items()]
        tables = [
            f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, rows)) + "\n]"
            for name, rows in self.tables().items()
        ]
        text = "{\n" + ",\n".join(lines) + ',\n"tables": {\n' + ",\n".join(tables) + "\n}\n}\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not by `storage`: the answers share no code with the pipeline.
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> "Answers":
        """The answers that `write` wrote; more messages can be added to them.

        Raises:
            AnswersError: there is no such file, or it is not one that this version wrote.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise AnswersError(
                f"{path}: no such file; write one with `antenna simulate --answers {path}`"
            ) from None
        except (OSError, ValueError) as error:
            raise AnswersError(
                f"{path}: expected an answers file in JSON, and it cannot be read: {error}"
            ) from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            found = document.get("format", "none") if isinstance(document, dict) else type(document).__name__
            raise AnswersError(
                f"{path}: expected an answers file of format {FORMAT}, found {found!r}; write it anew with"
                f" `antenna simulate --answers {path}`"
            )
        try:
            answers = cls._restored(document)
            complete = answers.tables() == document["tables"] and answers.hours() == document["hours"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AnswersError(
                f"{path}: an answers file with a part missing or damaged: {error!r}"
            ) from error
        if not complete:
            raise AnswersError(
                f"{path}: the tables contradict each other; the file was changed, write it anew"
            )
        return answers

    @classmethod
    def _restored(cls, document: Row) -> "Answers":
        window = timedelta(seconds=document["window_seconds"])
        answers = cls(document["users"], window=window, scenario=document["scenario"])
        answers.sent = document["sent"]
        answers.rejected.update(document["rejected"])
        answers.unknown_user_rows = document["unknown_user_rows"]
        answers._rows.update({_micros(row["hour"]): row["rows"] for row in document["hours"]})
        # The live windows are the finest sums there are: the hourly ones follow from them.
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
