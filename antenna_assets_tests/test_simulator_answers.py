"""The answers: equal to a recomputation from the bytes that were sent, and the same after a round trip."""

import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from antenna_assets import simulator
from antenna_assets.simulator import INDEPENDENT
from antenna_assets.simulator.answers import Answers, AnswersError, known_users
from antenna_assets.simulator.answers_file import read_answers, write_answers
from antenna_assets.simulator.events import Event, Message, Scenario, messages
from antenna_assets.simulator.scenario import EPOCH
from antenna_assets.storage.project_files import sql_folder

START = datetime(2026, 11, 22, 8, tzinfo=UTC)
USERS = {"ana": ("ana@gmail.com", 100), "bea": ("bea@gmail.com", 10)}


def scenario(events: int = 3000, **more: Any) -> Scenario:
    mix = {"late": 0.1, "malformed": 0.05, "future": 0.02, "unknown_users": 0.03}
    return Scenario(**{"events": events, "seed": 7, "start": START, "hours": 3, **mix, **more})


def answered(of: Scenario, **more: Any) -> Answers:
    answers = Answers(known_users(sql_folder() / "seed" / "users.csv"), scenario=of, **more)
    for _message in answers.counted(messages(of)):
        pass
    return answers


def event(time: str, app: str, id_: str, antenna: str, size: int) -> Event:
    return Event((datetime.fromisoformat(time) - EPOCH) // timedelta(microseconds=1), app, id_, antenna, size)


def test_three_events_give_these_tables() -> None:
    answers = Answers(USERS)
    answers.add(event("2026-11-22T10:04:59.999999Z", "SKYPE", "ana", "A1", 60))
    answers.add(event("2026-11-22T10:05:00Z", "SKYPE", "ana", "A2", 41))
    answers.add(event("2026-11-22T11:59:59Z", "TELEGRAM", "nobody", "A1", 7))
    ten, five, eleven, last = (f"2026-11-22T{time}:00Z" for time in ("10:00", "10:05", "11:00", "11:55"))
    assert answers.tables() == {
        "bytes_agg_antenna": [
            {"date": ten, "antenna_id": "A1", "sum_antenna_bytes": 60},
            {"date": five, "antenna_id": "A2", "sum_antenna_bytes": 41},
            {"date": last, "antenna_id": "A1", "sum_antenna_bytes": 7},
        ],
        "bytes_agg_user": [
            {"date": ten, "id": "ana", "sum_user_bytes": 60},
            {"date": five, "id": "ana", "sum_user_bytes": 41},
            {"date": last, "id": "nobody", "sum_user_bytes": 7},
        ],
        "bytes_agg_app": [
            {"date": ten, "app": "SKYPE", "sum_app_bytes": 60},
            {"date": five, "app": "SKYPE", "sum_app_bytes": 41},
            {"date": last, "app": "TELEGRAM", "sum_app_bytes": 7},
        ],
        "bytes_agg_antenna_1h": [
            {"date": ten, "antenna_id": "A1", "sum_antenna_bytes": 60},
            {"date": ten, "antenna_id": "A2", "sum_antenna_bytes": 41},
            {"date": eleven, "antenna_id": "A1", "sum_antenna_bytes": 7},
        ],
        "bytes_agg_user_1h": [
            {"date": ten, "id": "ana", "email": "ana@gmail.com", "sum_user_bytes": 101},
            {"date": eleven, "id": "nobody", "email": None, "sum_user_bytes": 7},
        ],
        "bytes_agg_app_1h": [
            {"date": ten, "app": "SKYPE", "sum_app_bytes": 101},
            {"date": eleven, "app": "TELEGRAM", "sum_app_bytes": 7},
        ],
        "users_over_quota_1h": [
            {"date": ten, "id": "ana", "email": "ana@gmail.com", "quota": 100, "sum_user_bytes": 101},
        ],
    }
    assert answers.hours() == [
        {"hour": ten, "rows": 2, "bytes": 101},
        {"hour": eleven, "rows": 1, "bytes": 7},
    ]
    assert answers.unknown_user_rows == 1


def test_usage_that_equals_the_quota_is_not_over_it() -> None:
    answers = Answers(USERS)
    answers.add(event("2026-11-22T10:00:00Z", "SKYPE", "ana", "A1", 100))
    answers.add(event("2026-11-22T10:00:00Z", "SKYPE", "bea", "A1", 11))
    assert [row["id"] for row in answers.tables()["users_over_quota_1h"]] == ["bea"]


def test_rejected_messages_are_counted_by_reason_and_nowhere_else() -> None:
    answers = Answers(USERS)
    bad = [
        Message(None, b"", None, "blank"),
        Message(None, b"{", None, "not_json"),
        Message(None, None, None, "blank"),
    ]
    assert list(answers.counted(bad)) == bad
    assert answers.rejected == {"blank": 2, "not_json": 1}
    assert not any(answers.tables().values())


def text(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def brute_force(of: Scenario, window: int) -> dict[str, Counter[tuple[Any, ...]]]:
    """Sums by table and key, from the bytes of the good messages alone."""
    tables: dict[str, Counter[tuple[Any, ...]]] = {}
    for message in messages(of):
        if message.reason is not None:
            continue
        found = json.loads(message.value or b"", parse_float=Decimal)
        stamp = found["timestamp"]
        if isinstance(stamp, str):
            instant = datetime.fromisoformat(stamp).astimezone(UTC)
        else:
            whole, fraction = divmod(Decimal(stamp), 1)
            instant = EPOCH + timedelta(seconds=int(whole), microseconds=int(fraction * 1_000_000))
        assert message.event is not None
        assert EPOCH + timedelta(microseconds=message.event.timestamp) == instant
        hour = instant.replace(minute=0, second=0, microsecond=0)
        live = hour + timedelta(minutes=instant.minute // window * window)
        for kind, key in {"antenna": "antenna_id", "user": "id", "app": "app"}.items():
            for date, suffix in ((live, ""), (hour, "_1h")):
                tables.setdefault(f"bytes_agg_{kind}{suffix}", Counter())[text(date), found[key]] += found[
                    "bytes"
                ]
    return tables


@pytest.mark.parametrize("window", [5, 1, 20, 60])
def test_answers_equal_a_recomputation_from_the_bytes(window: int) -> None:
    of = scenario()
    tables = answered(of, window=timedelta(minutes=window)).tables()
    expected = brute_force(of, window)
    quotas = {id_: user.quota for id_, user in known_users(sql_folder() / "seed" / "users.csv").items()}
    over = {
        key: size for key, size in expected["bytes_agg_user_1h"].items() if size > quotas.get(key[1], 10**18)
    }
    for name, sums in {**expected, "users_over_quota_1h": over}.items():
        rows = tables[name]
        key = next(column for column in ("antenna_id", "id", "app") if column in rows[0])
        size = next(column for column in rows[0] if column.startswith("sum_"))
        assert [((row["date"], row[key]), row[size]) for row in rows] == sorted(sums.items()), name
    assert over


def test_answers_count_every_message_once() -> None:
    answers = answered(scenario())
    assert sum(row["rows"] for row in answers.hours()) + sum(answers.rejected.values()) == 3000
    assert answers.unknown_user_rows == 90


def test_a_quiet_hour_is_part_of_the_answers() -> None:
    assert [row["rows"] for row in answered(scenario(events=0)).hours()] == [0, 0, 0]


def test_answers_come_back_from_their_file(tmp_path: Path) -> None:
    answers = answered(scenario())
    answers.record("devices", "AbC", {1: (0, 5), 0: (3, 9)})
    write_answers(answers, tmp_path / "folder" / "answers.json")
    again = read_answers(tmp_path / "folder" / "answers.json")
    assert again.tables() == answers.tables()
    assert again.hours() == answers.hours()
    assert again.rejected == answers.rejected
    assert again.sent == {"topic": "devices", "topic_id": "AbC", "offsets": {"0": [3, 9], "1": [0, 5]}}
    assert again.scenario == answers.scenario
    assert again.unknown_user_rows == answers.unknown_user_rows
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["answers.json"]


def test_the_file_says_what_it_holds(tmp_path: Path) -> None:
    write_answers(answered(scenario(events=100)), tmp_path / "answers.json")
    document = json.loads((tmp_path / "answers.json").read_text())
    assert document["format"] == 1
    assert document["scenario"]["start"] == "2026-11-22T08:00:00Z"
    assert document["window_seconds"] == 300
    assert len(document["tables"]) == 7


def test_more_messages_can_be_added_to_answers_that_were_read(tmp_path: Path) -> None:
    whole = answered(scenario())
    part = Answers(whole.users, scenario=scenario())
    stream = messages(scenario())
    list(part.counted(islice(stream, 1000)))
    part.record("devices", "AbC", {0: (10, 20)})
    write_answers(part, tmp_path / "answers.json")
    grown = read_answers(tmp_path / "answers.json")
    list(grown.counted(stream))
    grown.record("devices", "AbC", {0: (20, 30), 2: (5, 6)})
    assert grown.tables() == whole.tables()
    assert grown.hours() == whole.hours()
    assert grown.rejected == whole.rejected
    assert grown.sent == {"topic": "devices", "topic_id": "AbC", "offsets": {"0": [10, 30], "2": [5, 6]}}


def test_messages_of_another_topic_do_not_belong_to_the_same_answers() -> None:
    answers = Answers(USERS)
    answers.record("devices", "AbC", {0: (0, 1)})
    with pytest.raises(
        AnswersError,
        match=r"about topic devices \(id AbC\), and the messages were sent to devices \(id XyZ\)",
    ):
        answers.record("devices", "XyZ", {0: (0, 1)})


def test_a_window_that_does_not_divide_an_hour_is_refused() -> None:
    with pytest.raises(AnswersError, match="expected a length that divides an hour, found 0:07:00"):
        Answers(USERS, window=timedelta(minutes=7))


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answers.json"
    write_answers(answered(scenario(events=10)), path)
    before = path.read_text()

    def full_disk(*_arguments: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_answers(answered(scenario(events=20)), path)
    assert path.read_text() == before
    assert [found.name for found in tmp_path.iterdir()] == ["answers.json"]


def without(name: str) -> Callable[[str], str]:
    return lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != name})


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda _: "", "expected an answers file in JSON"),
        (lambda text: text[:-20], "expected an answers file in JSON"),
        (lambda _: "[]", "expected an answers file of format 1, found 'list'"),
        (lambda _: '{"format": 2}', "expected an answers file of format 1, found 2"),
        (lambda _: "{}", "expected an answers file of format 1, found 'none'"),
        (without("tables"), "a part missing or damaged: KeyError('tables')"),
        (without("hours"), "a part missing or damaged: KeyError('hours')"),
        (
            lambda text: text.replace('"sum_app_bytes": ', '"sum_app_bytes": 1', 1),
            "the tables contradict each other",
        ),
    ],
)
def test_a_file_that_holds_no_answers_is_refused(
    damage: Callable[[str], str], error: str, tmp_path: Path
) -> None:
    path = tmp_path / "answers.json"
    write_answers(answered(scenario(events=100)), path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(AnswersError) as raised:
        read_answers(path)
    assert error in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_missing_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(AnswersError, match="no such file; write one with `antenna simulate --answers"):
        read_answers(tmp_path / "answers.json")


def imports_of_this_package(module: str) -> set[str]:
    """Every module of the package that a module of the simulator imports, inside functions too."""
    source = (Path(next(iter(simulator.__path__))) / f"{module}.py").read_text(encoding="utf-8")
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            found.add(node.module or "")
        elif isinstance(node, ast.Call):
            assert "import" not in ast.unparse(node.func), f"{module}: an import by name"
    return {name for name in found if name.split(".")[0] == "antenna_assets"}


def test_what_must_result_is_computed_without_the_pipeline() -> None:
    allowed = {"antenna_assets.errors", *(f"antenna_assets.simulator.{name}" for name in INDEPENDENT)}
    for module in INDEPENDENT:
        assert imports_of_this_package(module) <= allowed, module
    # What is sent and what is expected starts in these two.
    assert {"answers", "events"} <= set(INDEPENDENT)


def test_the_independent_modules_load_nothing_else_of_the_package() -> None:
    names = [f"antenna_assets.simulator.{name}" for name in INDEPENDENT]
    program = (
        f"import sys, {', '.join(names)}; print(*sorted(m for m in sys.modules if m.startswith('antenna_')))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # The package itself applies ANTENNA_UMASK.
    around = {
        "antenna_assets",
        "antenna_assets.file_modes",
        "antenna_assets.errors",
        "antenna_assets.simulator",
    }
    assert set(run.stdout.split()) == {*around, *names}
