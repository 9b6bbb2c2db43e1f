"""A user is forgotten: nothing has the id any more, all sums stay, and every hour is certified as it is then."""

import base64
import gzip
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import dagster as dg
import psycopg
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg import sql
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect, dagster_url
from antenna_assets.operations.forget import run as run_of_forgetting
from antenna_assets.operations.forget.identity import EMAIL, NAME, is_unfinished
from antenna_assets.operations.forget.message_text import BINARY, COMPRESSED
from antenna_assets.operations.forget.places import places
from antenna_assets.operations.forget.replace_text import (
    LONGER,
    NOT_UTF8,
    TOO_DEEP,
    UNCLEAR,
    Judged,
    Search,
)
from antenna_assets.operations.forget.run import NotForgotten, forget
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings, load_settings
from antenna_assets.stack.kafka_topic import ensure_topic
from antenna_assets.storage.project_files import docker_folder
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, KNOWN, World
from antenna_assets_tests.end_to_end.runs import place
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.runs import run, send
from antenna_assets_tests.local_runs import publish

ID = "00000000-0000-0000-0000-000000000003"
NEW = "forgotten-1"


def judged(message: bytes, user: str = ID, **more: bool) -> tuple[bytes, str | None]:
    found = Search(user, NEW, **more).judge(message)
    assert found.found == (found.value != message)
    return found.value, found.unclear


OBJECT = json.dumps({"id": ID, "bytes": 5})

SPELLED = {
    "a string": (b'{"id": "%s", "bytes": -1}', b'{"id": "forgotten-1", "bytes": -1}'),
    "twice": (b'{"id":"%s","id":"%s"}', b'{"id":"forgotten-1","id":"forgotten-1"}'),
    "no end": (b'{"id": "%s', b'{"id": "forgotten-1'),
    "no quotes": (b"id=%s;bytes=3", b"id=forgotten-1;bytes=3"),
    "not UTF-8": (b'\xff{"id":"%s"}\xfe', b'\xff{"id":"forgotten-1"}\xfe'),
    "a schema's frame": (b'\0\0\0\0\x07{"id":"%s"}', b'\0\0\0\0\x07{"id":"forgotten-1"}'),
    "a note": (b'{"note":"user %s called"}', b'{"note":"user forgotten-1 called"}'),
    "a name": (b'{"%s":{"bytes":1}}', b'{"forgotten-1":{"bytes":1}}'),
    "XML": (b"<id>%s</id>", b"<id>forgotten-1</id>"),
    "a longer one": (b'{"id": "%s-and-more"}', b'{"id": "%s-and-more"}'),
    "another one": (b'{"id": "00000000-0000-0000-0000-000000000004"}',) * 2,
}


@pytest.mark.parametrize("case", SPELLED)
def test_an_id_is_replaced_in_a_message_and_all_else_stays(case: str) -> None:
    before, after = (text.replace(b"%s", ID.encode()) for text in SPELLED[case])
    assert judged(before) == (after, None)


@pytest.mark.parametrize(
    "spelled",
    [
        '"caf\\u00e9 \\"1\\""',
        '"caf\\u00E9 \\u00221\\u0022"',
        '"caf\u00e9 \\"1\\""',
        '"\\u0063af\u00e9 \\"1\\""',
        '"cafe\u0301 \\"1\\""',
        '"cafe\\u0301 \\"1\\""',
    ],
)
def test_an_id_is_found_however_json_spells_it(spelled: str) -> None:
    text = f'{{"id":{spelled},"bytes":"1"}}'
    assert judged(text.encode(), 'caf\u00e9 "1"') == (b'{"id":"forgotten-1","bytes":"1"}', None)


CLOTHES = {
    "a number": ("491701234567", b'{"id":491701234567,"bytes":-1}', b'{"id":"forgotten-1","bytes":-1}'),
    "a number with an exponent": ("12345", b'{"id": 1.2345e4}', b'{"id": "forgotten-1"}'),
    "a number with a fraction": ("12345", b'{"id":12345.0,"x":1}', b'{"id":"forgotten-1","x":1}'),
    "a number with a plus before it": ("+491701234567", b'{"id":491701234567}', b'{"id":"forgotten-1"}'),
    "an array": ("491701234567", b"[1,491701234567]", b'[1,"forgotten-1"]'),
    "doubly encoded": (ID, json.dumps({"p": OBJECT}).encode(), None),
    "doubly encoded, a short one": ("7", b'{"p":"{\\"id\\":\\"7\\",\\"bytes\\":7}"}', None),
    "encoded three times": (ID, json.dumps({"p": json.dumps({"q": OBJECT})}).encode(), None),
    "UTF-16": (ID, OBJECT.encode("utf-16"), None),
    "UTF-16 without a mark": (ID, OBJECT.encode("utf-16-be"), None),
    "UTF-32": (ID, OBJECT.encode("utf-32-le"), None),
    "base64": (ID, base64.b64encode(OBJECT.encode()), None),
    "base64 of URLs": (ID, b'{"p":"' + base64.urlsafe_b64encode(OBJECT.encode()).rstrip(b"=") + b'"}', None),
    "base64 of the id": (ID, b"key " + base64.b64encode(ID.encode()), b"key forgotten-1"),
    "hexadecimal": (ID, OBJECT.encode().hex().encode(), None),
    "percent": (ID, b"id=" + b"".join(b"%%%02x" % one for one in ID.encode()), b"id=forgotten-1"),
    "percent, letters beyond ASCII": ("no\u00ebl", b"?id=no%C3%ABl&bytes=1", b"?id=forgotten-1&bytes=1"),
    "HTML": ("no\u00ebl", b"<id>no&#235;l</id>", b"<id>forgotten-1</id>"),
    "a pair of surrogates": ("\U0001f600x", b'{"id":"\\ud83d\\ude00x"}', b'{"id":"forgotten-1"}'),
    "a UUID without hyphens": (ID, ID.replace("-", "").encode(), b"forgotten-1"),
    "a UUID in capitals": (
        "0000000a-0000-0000-0000-00000000000a",
        b'"0000000A-0000-0000-0000-00000000000A"',
        b'"forgotten-1"',
    ),
}


@pytest.mark.parametrize("case", CLOTHES)
def test_row_34_an_id_in_other_clothes_is_found(case: str) -> None:
    user, message, expected = CLOTHES[case]
    value, unclear = judged(message, user)
    assert unclear is None
    if expected is None:
        assert value != message
        assert Search(user, "").judge(value) == Judged(value)
    else:
        assert value == expected


NOT_THE_USER = {
    "a short one within another text": ("7", b'{"id":"7up","bytes":7,"app":"7 Up"}'),
    "a number of bytes": ("12345678", b'{"id":"x","bytes":12345678,"timestamp":12345678}'),
    "a word of JSON": ("true", b'{"id":"x","flag":true}'),
    "the name of a field": ("timestamp", b'{"id":"x","timestamp":-1}'),
    "an app": ("FACEBOOK", b'{"id":"x","app":"FACEBOOK"}'),
    "another text that is the same number": ("12345678", b'{"x":"12345678.0"}'),
    "a part of a number": ("7", b"7.25 and 3.7 and -7 and 77"),
    "another user": ("anna", b'{"id":"anna b"}'),
}


@pytest.mark.parametrize("case", NOT_THE_USER)
def test_row_34_what_is_only_spelled_like_an_id_stays(case: str) -> None:
    user, message = NOT_THE_USER[case]
    assert judged(message, user, is_a_name=case == "an app") == (message, None)


def test_a_short_id_is_replaced_only_where_a_user_can_stand() -> None:
    message = b'{"id":"7","bytes":7,"app":"7up"'
    assert judged(message, "7") == (b'{"id":"forgotten-1","bytes":7,"app":"7up"', None)
    assert judged(b"id=7;bytes=7", "7") == (b"id=forgotten-1;bytes=7", None)
    assert judged(b'{"id":true}', "true") == (b'{"id":"forgotten-1"}', None)
    assert judged(b'{"id":"bytes","bytes":-1}', "bytes") == (b'{"id":"forgotten-1","bytes":-1}', None)


UNJUDGED = {
    "gzip": (ID, gzip.compress(OBJECT.encode()), COMPRESSED),
    "binary": (ID, b"\x93\x00\x01\xff", BINARY),
    "half of UTF-16": (ID, OBJECT.encode("utf-16-le")[:-1], BINARY),
    "not UTF-8, and what is looked for is not ASCII": ("no\u00ebl", b'{"id":"x\xff"}', NOT_UTF8),
    "a word that may be anything": ("7", b"user 7 failed", UNCLEAR),
    "within another id": ("johannes", b'{"id":"johannes.k"}', LONGER),
    "escaped too often": (ID, b"\\" * 1000, TOO_DEEP),
}


@pytest.mark.parametrize("case", UNJUDGED)
def test_row_34_a_message_that_nobody_can_judge_is_named(case: str) -> None:
    user, message, unclear = UNJUDGED[case]
    assert judged(message, user) == (message, unclear)


LARGE = (
    b'"',
    b'\\"',
    b'"\\',
    b"\\",
    b"a",
    b"7",
    b"-7",
    b"7 ",
    b':"',
    b"\\u0041",
    b"%25",
    b'{"id":7},',
    b"a" * 20 + b" ",
)


@pytest.mark.parametrize("repeated", LARGE)
@pytest.mark.parametrize("user", ["7", ID, "'" * 64, '"'])
def test_row_34_the_time_is_linear_in_the_message(repeated: bytes, user: str) -> None:
    search = Search(user, NEW)

    def seconds(size: int) -> float:
        message = repeated * (size // len(repeated))
        began = time.process_time()
        search.judge(message)
        return time.process_time() - began

    seconds(20_000)
    # Quadratic would be a hundred times as long; and 1 MB takes seconds, not hours.
    assert seconds(200_000) < 30 * max(seconds(20_000), 0.002)


@given(st.binary(), st.text(min_size=1, max_size=64))
def test_a_message_without_the_id_stays_byte_for_byte(message: bytes, user: str) -> None:
    found = Search(user, NEW).judge(message)
    assert found.found or found.value == message


@given(st.text(min_size=1, max_size=64).filter(str.strip), st.integers(0, 3))
@example('"', 0)
@example(":", 1)
@example("id", 2)
def test_an_id_in_a_json_object_is_found_whatever_it_is(user: str, wrapped: int) -> None:
    message = json.dumps({"id": user, "bytes": -1})
    for _ in range(wrapped):
        message = json.dumps({"message": message})
    found = Search(user, NEW).judge(message.encode())
    assert found.found
    value = json.loads(found.value)
    for _ in range(wrapped):
        value = json.loads(value["message"])
    assert value == {"id": NEW, "bytes": -1}


SUMS = {
    "bytes_agg_antenna": "date, antenna_id, sum_antenna_bytes",
    "bytes_agg_app": "date, app, sum_app_bytes",
    "bytes_agg_user": "date, sum_user_bytes",
    "bytes_agg_antenna_1h": "date, antenna_id, sum_antenna_bytes",
    "bytes_agg_app_1h": "date, app, sum_app_bytes",
    "bytes_agg_user_1h": "date, sum_user_bytes, email IS NULL",
    "users_over_quota_1h": "date, quota, sum_user_bytes",
    "user_metadata": "quota",
    "ledger.hour": "hour, rows, bytes, generation",
    "ledger.file": "kind, hour, rows, bytes, batch",
}
"""What must stay as it is."""


def sums(connection: psycopg.Connection) -> dict[str, list[tuple]]:
    return {
        table: connection.execute(f"SELECT {columns} FROM {table} ORDER BY {columns}".encode()).fetchall()  # noqa: S608
        for table, columns in SUMS.items()
    }


def everything_kept(connection: psycopg.Connection, lake: Path) -> Iterator[tuple[str, str]]:
    """All rows of all tables and all values of all files as text, by where they are: with nothing of the project's own."""
    for schema, table in connection.execute(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
        " AND table_schema NOT IN ('pg_catalog', 'information_schema')"
    ).fetchall():
        rows = connection.execute(
            sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table))
        )
        for (row,) in rows:
            yield f"{schema}.{table}", row
            for picture in re.findall(r"svg\+xml;base64,([A-Za-z0-9+/=]+)", row):
                yield f"{schema}.{table}, picture", base64.b64decode(picture).decode()
    for path in lake.rglob("*"):
        if path.suffix == ".parquet":
            for row in pq.ParquetFile(path).read().to_pylist():
                yield (
                    str(path),
                    " ".join(
                        value.decode("latin-1") if isinstance(value, bytes) else str(value)
                        for value in row.values()
                    ),
                )
        elif path.is_file():
            yield str(path), path.read_text(encoding="latin-1")


def kept_with(connection: psycopg.Connection, lake: Path, *texts: str) -> set[str]:
    return {where for where, kept in everything_kept(connection, lake) if any(text in kept for text in texts)}


def differences(connection: psycopg.Connection, lake: Path) -> list:
    found = verify(connection, Lake(str(lake)), kept_since=FIRST)
    assert found.pending == {}
    return found.differences


@pytest.mark.services
@pytest.mark.parametrize("user", [KNOWN[2], "a stranger", "no\u00ebl '\\ \u0001"])
def test_a_user_of_certified_hours_is_forgotten_and_every_sum_stays(
    certified_world: World, tmp_path: Path, user: str
) -> None:
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        before = sums(connection)
        ((certificates,),) = connection.execute("SELECT count(*) FROM ledger.certificate").fetchall()
        hours = connection.execute(
            "SELECT count(DISTINCT date) FROM bytes_agg_user_1h WHERE id = %s", [user]
        ).fetchall()[0][0]
        assert hours == 2
        assert differences(connection, world.lake) == []
        identity = forget(connection, Lake(str(world.lake)), user, say=print)
        assert not places(connection, Lake(str(world.lake)), user)
        assert sums(connection) == before
        assert differences(connection, world.lake) == []
        known = user in KNOWN
        assert connection.execute(
            "SELECT name, email FROM user_metadata WHERE id = %s", [identity.pseudonym]
        ).fetchall() == ([(NAME, EMAIL)] if known else [])
        ((issued,),) = connection.execute(
            "SELECT count(DISTINCT hour) FROM ledger.certificate WHERE number > %s", [certificates]
        ).fetchall()
        assert issued == hours
        assert connection.execute("SELECT id, hours FROM ledger.forgotten").fetchall() == [(None, hours)]


@pytest.mark.services
def test_a_user_who_is_nowhere_is_told_and_nothing_is_written(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with certified_world.copy(tmp_path) as world:
        monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
        monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
        told = CliRunner().invoke(app, ["forget-user", "nobody"])
        assert (told.exit_code, told.output.strip()) == (0, "the id is nowhere")
        refused = CliRunner().invoke(app, ["forget-user", KNOWN[0]], input="n\n")
        assert refused.exit_code == 1
        with connect(world.url) as connection:
            assert connection.execute("SELECT count(*) FROM ledger.forgotten").fetchall() == [(0,)]


@pytest.mark.services
def test_row_34_an_attempt_of_a_run_that_was_killed_goes_with_the_user(
    certified_world: World, tmp_path: Path
) -> None:
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        lake = Lake(str(world.lake))
        source = next(world.lake.glob("landing/*/hour=*/*.parquet"))
        attempt = Path(lake.new_folder("raw_parquet", FIRST, 9))
        attempt.mkdir(parents=True)
        shutil.copy(source, attempt / "part-0.parquet")
        (attempt / "part-1.parquet").write_bytes(b"PAR1 and no end")
        user = pq.read_table(source)["id"][0].as_py()
        forget(connection, lake, user, say=print)
        assert not attempt.exists()
        assert not places(connection, lake, user)
        assert differences(connection, world.lake) == []


@pytest.mark.services
def test_row_34_a_batch_of_the_stream_under_way_is_left_and_named(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_of_forgetting, "PAUSE_SECONDS", 0.01)
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        lake = Lake(str(world.lake))
        source = next(world.lake.glob("landing/*/hour=*/*.parquet"))
        attempt = world.lake / "landing" / "9-under-way" / source.parent.name
        attempt.mkdir(parents=True)
        shutil.copy(source, attempt / "part-0.parquet")
        user = pq.read_table(source)["id"][0].as_py()
        with pytest.raises(NotForgotten, match="9-under-way"):
            forget(connection, lake, user, say=print)
        assert is_unfinished(connection, user)
        shutil.rmtree(attempt.parent)
        forget(connection, lake, user, say=print)
        assert not places(connection, lake, user)
        assert differences(connection, world.lake) == []


@pytest.fixture(scope="module")
def published_once(
    kafka: str,
    new_database: Callable[[str], AbstractContextManager[str]],
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Path]]:
    """Two hours with rejected messages of each user, published by Dagster on PostgreSQL, with previews and pictures.

    The database's name and the home, to copy from.
    """
    home, topic = tmp_path_factory.mktemp("published"), f"published-{uuid4().hex[:12]}"
    with new_database(migrated_template) as url, pytest.MonkeyPatch.context() as environment:
        settings = Settings(home=home, postgres_url=url, kafka_bootstrap=kafka, topic=topic)
        ensure_topic(kafka, topic, 4)
        send(settings, home / "answers.json", events=2_000, hours=2)
        for user in (f"00000000-0000-0000-0000-{number:012}" for number in range(1, 21)):
            place(settings, [(0, b'{"id":"%s","bytes":-5}' % user.encode()), (1, b"broken " + user.encode())])
        read_everything(settings)
        for name, value in settings.exports().items():
            environment.setenv(name, value)
        environment.setenv("DAGSTER_HOME", str(home / "dagster"))
        environment.setenv("DAGSTER_POSTGRES_URL", dagster_url(url))
        (home / "dagster").mkdir()
        shutil.copyfile(docker_folder() / "dagster.yaml", home / "dagster" / "dagster.yaml")
        with dg.DagsterInstance.get() as instance:
            assert all(result.success for _, result in publish(instance))
        environment.undo()
        # Those that Dagster keeps open: a database in use is not copied.
        with connect(url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        yield urlsplit(url).path.removeprefix("/"), home


@pytest.fixture
def published(
    settings: Settings,
    published_once: tuple[str, Path],
    new_database: Callable[[str], AbstractContextManager[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Settings]:
    """A copy of what was published once."""
    database, home = published_once
    with new_database(database) as url:
        shutil.copytree(home, settings.home, dirs_exist_ok=True)
        monkeypatch.setenv("ANTENNA_POSTGRES_URL", url)
        monkeypatch.setenv("DAGSTER_HOME", str(settings.home / "dagster"))
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_url(url))
        yield load_settings()


POINTS = ("forget.swapped", "forget.hour_in_lake", "forget.fenced", "forget.replaced")


@pytest.mark.services
@pytest.mark.parametrize("point", [*POINTS, "publish.lake.committed", "publish.certified", None])
def test_a_run_that_is_killed_anywhere_is_finished_by_the_next_one(
    published: Settings, point: str | None
) -> None:
    lake = Path(published.lake_uri)
    with connect(published.postgres_url or "") as connection:
        # One who would be in previews and plots.
        user, email = connection.execute(
            "SELECT id, email FROM bytes_agg_user_1h WHERE email IS NOT NULL ORDER BY sum_user_bytes DESC LIMIT 1"
        ).fetchall()[0]
        short = f"{user[:8]}\u2026{user[-15:]}"
        command = ("antenna_assets.cli", "forget-user", user, "--yes")
        kept = kept_with(connection, lake, user, short)
        assert "public.bytes_agg_user_1h" in kept
        # Dagster keeps what it is told for ever: it is told of nobody.
        assert not [where for where in kept if where.startswith("dagster.")]
        before = sums(connection)
        if point is not None:
            assert run(published, command, crash_at=point)[0] == -9
            assert sums(connection) == before
        code, said = run(published, command)
        assert code == 0, said
        assert kept_with(connection, lake, user, email, short) == set()
        assert sums(connection) == before
        assert differences(connection, lake) == []
        assert connection.execute("SELECT count(*), count(id) FROM ledger.forgotten").fetchall() == [(1, 0)]
