"""proofs.md, row 34: forgetting a user meets publications, replays, sweeps, late rows and another forgetting."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql
from psycopg.pq import TransactionStatus
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.ledger.errors import ForgottenMeanwhile
from antenna_assets.ledger.publications import require_nobody_forgotten
from antenna_assets.operations.forget import fence, lake_rewrite
from antenna_assets.operations.forget.fence import ForgettingRunning, WriterStuck
from antenna_assets.operations.forget.identity import NoIdentity
from antenna_assets.operations.forget.lake_rewrite import Swap
from antenna_assets.operations.forget.lake_search import LakeSearch
from antenna_assets.operations.forget.places import places
from antenna_assets.operations.forget.replace_text import Search
from antenna_assets.operations.forget.run import forget
from antenna_assets.operations.quarantine import replay
from antenna_assets.operations.quarantine.messages import Selection, select
from antenna_assets.operations.sweep.orphans import old_attempts
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.publishing.fence import Replacement
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings, load_settings
from antenna_assets_tests import certified
from antenna_assets_tests.certified import FIRST, KNOWN, Land, World, land_and_publish
from antenna_assets_tests.faults.publish import publish_hour, write_rows
from antenna_assets_tests.faults.workers import Worker
from antenna_assets_tests.notices import add_channel, owed, write
from antenna_assets_tests.quarantined import SENT, reject
from antenna_assets_tests.test_forget import differences, kept_with, sums

pytestmark = pytest.mark.services

USER = KNOWN[2]
FOURTH = FIRST + 3 * HOUR
"""An hour of the certified world that is still open."""


def settings_of(world: World, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
    monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
    monkeypatch.setenv("ANTENNA_HOME", str(world.lake.parent))
    return load_settings()


def forget_user(user: str) -> None:
    """What a worker does."""
    settings = load_settings()
    with connect(settings.postgres_url or "") as connection:
        forget(connection, Lake(settings.lake_uri), user, say=print)


def wait_for(worker: Worker) -> None:
    """Wait until it has ended, well or not."""
    end = time.monotonic() + 120
    while worker.running:
        assert time.monotonic() < end, worker.said.read_text()
        time.sleep(0.05)


def must_be_whole(world: World, connection: psycopg.Connection, user: str) -> None:
    assert kept_with(connection, world.lake, user) == set()
    assert differences(connection, world.lake) == []


PAUSES = {
    "publish.lake.files_written": FOURTH,
    "publish.table.computed:3": FOURTH,
    "publish.lake.committed:2": FIRST,
    "publish.sealed": FIRST,
    "publish.lake.files_written:2": FIRST,
    "publish.lake.committed": FOURTH,
    "publish.hours_done": FIRST,
    "publish.hours_done:2": FOURTH,
    "publish.table.committed:2": FIRST,
}
"""Where a run is paused while a user is forgotten; the first two in the suite."""


def test_row_34_a_run_that_had_read_a_user_before_they_were_forgotten_does_not_bring_them_back(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proving: bool
) -> None:
    for number, (point, hour) in enumerate(list(PAUSES.items())[: None if proving else 2]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with certified_world.copy(folder) as world, connect(world.url) as connection:
            settings = settings_of(world, monkeypatch)
            monkeypatch.setattr(certified, "USERS", [USER, "another"])
            # The first hour has late rows then, and the fourth was never published.
            Land.on(connection, world.lake)(
                {FIRST: 9, FOURTH: 9}, newest=FOURTH + HOUR + timedelta(minutes=9)
            )
            key, fault = hour_key(hour), f"{point}:pause"
            with Worker(settings, folder / "run", publish_hour, key, crash_at=fault) as run:
                run.wait_until_paused()
                forget(connection, Lake(str(world.lake)), USER, say=print)
                assert kept_with(connection, world.lake, USER) == set()
                run.wake()
                wait_for(run)
            assert kept_with(connection, world.lake, USER) == set()
            for one in (FIRST, FOURTH):
                with Worker(settings, folder / "again", publish_hour, hour_key(one)) as run:
                    run.must_succeed()
            must_be_whole(world, connection, USER)


def test_row_34_a_session_that_is_older_than_a_forgetting_commits_nothing_in_the_lake(
    certified_world: World, tmp_path: Path
) -> None:
    with (
        certified_world.copy(tmp_path) as world,
        connect(world.url) as early,
        connect(world.url) as connection,
    ):
        lake = Lake(str(world.lake))
        forget(connection, lake, USER, say=print)
        version = lake.hour("raw_parquet", FIRST).version
        # Written after the fence was raised, with what was read before.
        written = write_rows(lake.root, FIRST, 9, 5)
        with pytest.raises(ForgottenMeanwhile, match="nothing was committed; run it again"):
            lake.replace_hours(
                "raw_parquet",
                [Replacement("raw_parquet", FIRST, 9, [written])],
                before_commit=lambda: require_nobody_forgotten(early),
            )
        assert lake.hour("raw_parquet", FIRST).version == version
        assert not Path(written.path).exists()
        with connect(world.url) as late:
            require_nobody_forgotten(late)


def test_row_34_a_publication_in_its_transaction_is_waited_for_and_named(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "LONGEST_TRANSACTION_SECONDS", 3)
    # At the first look.
    monkeypatch.setattr(fence, "SAY_AFTER_SECONDS", 0)
    said: list[str] = []
    point = "publish.table.copied:3:pause"
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        settings = settings_of(world, monkeypatch)
        monkeypatch.setattr(certified, "USERS", [USER, "another"])
        Land.on(connection, world.lake)({FOURTH: 9}, newest=FOURTH + HOUR + timedelta(minutes=9))
        with Worker(settings, tmp_path / "run", publish_hour, hour_key(FOURTH), crash_at=point) as run:
            run.wait_until_paused()
            with pytest.raises(
                WriterStuck, match="1 transaction of runs, replays or the watch did not end within"
            ):
                forget(connection, Lake(str(world.lake)), USER, say=said.append)
            waiting = "waiting for 1 transaction of runs, replays or the watch since "
            assert any(line.startswith(waiting) for line in said)
            run.wake()
            wait_for(run)
        forget(connection, Lake(str(world.lake)), USER, say=print)
        with Worker(settings, tmp_path / "again", publish_hour, hour_key(FOURTH)) as run:
            run.must_succeed()
        must_be_whole(world, connection, USER)


def test_row_34_the_second_of_two_who_forget_is_refused_and_no_file_is_lost(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        settings = settings_of(world, monkeypatch)
        before = sums(connection)
        point = "forget.hour_in_lake:pause"
        with Worker(settings, tmp_path / "one", forget_user, USER, crash_at=point) as one:
            one.wait_until_paused()
            for other in (USER, KNOWN[1]):
                with pytest.raises(ForgettingRunning, match="another forget-user is running"):
                    forget(connection, Lake(str(world.lake)), other, say=print)
            refused = CliRunner().invoke(app, ["forget-user", KNOWN[1], "--yes"])
            assert isinstance(refused.exception, ForgettingRunning)
            one.wake()
            one.must_succeed()
        assert sums(connection) == before
        must_be_whole(world, connection, USER)


def test_row_34_a_login_with_the_two_roles_forgets_and_fences_sessions_of_others(
    certified_world: World, tmp_path: Path
) -> None:
    name = f"forgets_{uuid4().hex[:8]}"
    role = sql.Identifier(name)
    with certified_world.copy(tmp_path) as world, connect(world.url) as owner:
        before = sums(owner)
        owner.execute(
            sql.SQL(
                "CREATE ROLE {} LOGIN PASSWORD 'only-of-this-test' IN ROLE antenna_administrator, antenna_publisher"
            ).format(role)
        )
        try:
            parts = urlsplit(world.url)
            place = f"{name}:only-of-this-test@{parts.netloc.rpartition('@')[2]}"
            with connect(urlunsplit(parts._replace(netloc=place))) as connection:
                forget(connection, Lake(str(world.lake)), USER, say=print)
                with pytest.raises(ForgottenMeanwhile):
                    require_nobody_forgotten(owner)
            with connect(world.url) as late:
                require_nobody_forgotten(late)
            assert sums(owner) == before
            must_be_whole(world, owner, USER)
        finally:
            owner.execute(sql.SQL("DROP OWNED BY {}").format(role))
            owner.execute(sql.SQL("DROP ROLE {}").format(role))


def test_row_34_a_sweep_beside_a_forgetting_takes_nothing_that_it_needs(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        settings = settings_of(world, monkeypatch)
        before = sums(connection)

        def sweep_later() -> None:
            later = datetime.now(UTC) + timedelta(hours=9)
            home = tmp_path / "dagster"
            sweep(world.url, str(world.lake), dagster_home=home, horizon=settings.horizon, now=later)

        point = "forget.hour_in_lake:pause"
        with Worker(settings, tmp_path / "one", forget_user, USER, crash_at=point) as one:
            one.wait_until_paused()
            sweep_later()
            one.wake()
            one.must_succeed()
        sweep_later()
        assert sums(connection) == before
        must_be_whole(world, connection, USER)


def test_row_34_late_rows_of_a_user_who_is_being_forgotten_are_added_to_the_pseudonym(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        settings = settings_of(world, monkeypatch)
        monkeypatch.setattr(certified, "USERS", [USER])
        with Worker(settings, tmp_path / "one", forget_user, USER, crash_at="forget.replaced") as killed:
            wait_for(killed)
        Land.on(connection, world.lake)({FIRST: 9}, newest=FOURTH + timedelta(minutes=11))
        with Worker(settings, tmp_path / "late", publish_hour, hour_key(FIRST)) as run:
            run.must_succeed()
        before = sums(connection)
        forget(connection, Lake(str(world.lake)), USER, say=print)
        assert kept_with(connection, world.lake, USER) == set()
        with Worker(settings, tmp_path / "again", publish_hour, hour_key(FIRST)) as run:
            run.must_succeed()
        must_be_whole(world, connection, USER)
        assert sums(connection)["ledger.hour"] == before["ledger.hour"]
        assert sums(connection)["bytes_agg_antenna_1h"] == before["bytes_agg_antenna_1h"]
        ((users, bytes_),) = connection.execute(
            "SELECT count(*), sum(sum_user_bytes) FROM bytes_agg_user_1h WHERE date = %s AND id LIKE 'forgotten-%%'",
            [FIRST],
        ).fetchall()
        assert users == 1
        assert bytes_ > 0


def test_row_34_while_the_ledger_is_locked_no_file_is_written_and_only_what_landed_meanwhile_is_searched(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[tuple[int, bool]] = []
    of, rewrite = LakeSearch.of, lake_rewrite.write_without
    with (
        certified_world.copy(tmp_path) as world,
        connect(world.url) as connection,
        connect(world.url) as other,
    ):
        land = Land.on(other, world.lake)

        def require_unlocked() -> None:
            with other.transaction():
                other.execute("SELECT FROM ledger.head FOR UPDATE NOWAIT")

        def search(self: LakeSearch, paths: list[str]) -> list[str]:
            locked = connection.info.transaction_status != TransactionStatus.IDLE
            found = of(self, paths)
            if not locked:
                require_unlocked()
                if len(searched) < 3:  # The stream goes on meanwhile.
                    land({FOURTH: 3})
            searched.append((len(paths), locked))
            return found

        def write_unlocked(*arguments: object, **options: object) -> Swap:
            require_unlocked()
            return rewrite(*arguments, **options)

        monkeypatch.setattr(LakeSearch, "of", search)
        monkeypatch.setattr(lake_rewrite, "write_without", write_unlocked)
        monkeypatch.setattr(certified, "USERS", [USER])
        forget(connection, Lake(str(world.lake)), USER, say=print)
        # All files first, then those of each batch that came meanwhile: under the lock to see whether they have
        # to be rewritten, and after it to do so.
        assert searched[0][0] > 3
        assert searched[1:] == [(1, True), (1, False), (1, True), (1, False), (0, True)]
        must_be_whole(world, connection, USER)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str) -> Settings:
    """Settings of a database and a lake, without Kafka."""
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres_url)
    return load_settings()


CLOCK = SENT + timedelta(hours=2)


def mended(user: object) -> bytes:
    event = {"bytes": 10, "timestamp": SENT.isoformat(), "app": "SKYPE", "id": user, "antenna_id": "a1"}
    return json.dumps(event).encode()


def test_row_34_a_replay_that_was_planned_before_lands_nothing(
    settings: Settings, connection: psycopg.Connection
) -> None:
    # Good by now, as after a fix of the pipeline.
    reject(connection, settings, {0: [("wrong_type", mended(USER)), ("wrong_type", mended("another"))]})
    lake = Lake(settings.lake_uri)
    with connect(settings.postgres_url or "") as early:
        planned = replay.plan(early, settings, Selection(), clock=CLOCK)
        forget(connection, lake, USER, say=print)
        with pytest.raises(ForgottenMeanwhile, match="run it again"):
            replay.execute(early, settings, planned)
    with connect(settings.postgres_url or "") as late:
        # What the refused one has landed is gone, too.
        assert kept_with(late, Path(settings.lake_uri), USER) == set()
        planned = replay.plan(late, settings, Selection(), clock=CLOCK)
        assert planned.accepted.num_rows == 2
        replay.execute(late, settings, planned)
        assert kept_with(late, Path(settings.lake_uri), USER) == set()


def test_row_34_what_a_killed_replay_of_an_older_version_left_is_found_and_swept(
    settings: Settings, connection: psycopg.Connection
) -> None:
    root = Path(settings.lake_uri)
    left = root / "scratch" / "0" / "messages.parquet"
    left.parent.mkdir(parents=True)
    pq.write_table(pa.table({"value": [mended(USER)], "number": [0]}), left)
    later = datetime.now(UTC) + timedelta(hours=9)
    swept = [one.path for found in old_attempts(connection, root, now=later, clock=later) for one in found]
    assert left in swept
    assert set(places(connection, Lake(str(root)), USER).files) == {str(left.relative_to(root))}
    forget(connection, Lake(str(root)), USER, say=print)
    assert kept_with(connection, root, USER) == set()


def test_row_34_messages_that_cannot_be_judged_are_named_and_dropped_if_asked_for(
    settings: Settings, connection: psycopg.Connection
) -> None:
    root = Path(settings.lake_uri)
    packed = gzip.compress(mended(USER))
    reject(
        connection,
        settings,
        {0: [("wrong_type", mended(int("49" + "17" * 5))), ("not_utf8", packed)], 3: [("blank", None)]},
    )
    user = "49" + "17" * 5
    command = ["forget-user", user, "--yes"]
    shown = CliRunner().invoke(app, [*command, "--dry-run"])
    assert shown.exit_code == 0
    assert "compressed" in shown.output
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 1
    assert (
        "is nowhere any more, as far as can be judged: 1 rejected messages may still name the user"
        in first.output
    )
    # Nothing has changed for who asks again.
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    assert "the id is nowhere, as far as can be judged: 1 rejected messages" in again.output
    dropped = CliRunner().invoke(app, [*command, "--drop-unjudged"])
    assert dropped.exit_code == 0, dropped.output
    assert "1 rejected messages were dropped; the id is nowhere any more\n" in dropped.output
    rows = select(connection, settings.lake_uri, Selection()).to_pylist()
    assert [(row["kafka_partition"], row["kafka_offset"], row["reason"]) for row in rows] == [
        (0, 0, "wrong_type"),
        (0, 1, "not_utf8"),
        (3, 0, "blank"),
    ]
    assert b'"id": "forgotten-' in rows[0]["value"]
    assert (rows[1]["value"], rows[1]["detail"]) == (
        b"[dropped by antenna forget-user]",
        "dropped when a user was forgotten: compressed",
    )
    assert rows[2]["value"] is None
    # Invariant 2.
    assert connection.execute(
        "SELECT (SELECT sum(rows) FROM ledger.file), (SELECT sum(until_offset - from_offset) FROM ledger.batch_offset)"
    ).fetchall() == [(3, 3)]
    assert connection.execute(
        "SELECT unjudged, dropped, id IS NULL FROM ledger.forgotten ORDER BY done_at"
    ).fetchall() == [(1, 0, True), (0, 1, True)]
    assert kept_with(connection, root, user) == set()


ODD = [
    "7",
    "12345678",
    "true",
    "id",
    "bytes",
    "raw_parquet",
    "landing",
    "SKYPE",
    "north",
    "../../lake/%41",
    "'; DROP TABLE user_metadata; --",
    "(a+)+$ .* [x]",
    "\u00e9" * 32,
    "a" * 64,
    "a" * 63,
    "forgotten",
    "rewritten when",
]
"""Ids of each kind; some are a part of another, a name of an app or an antenna, or a word of ours."""


@pytest.fixture
def odd_world(
    postgres_server: str, migrated_template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Published hours of users with odd ids."""
    monkeypatch.setattr(certified, "USERS", ODD)
    name = f"odd_{uuid4().hex[:12]}"
    server = urlunsplit(urlsplit(postgres_server)._replace(path="/postgres"))
    names = {"name": sql.Identifier(name), "template": sql.Identifier(migrated_template)}
    with connect(server) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names))
    try:
        world = World(urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}")), tmp_path / "lake")
        land_and_publish(world)
        yield world
    finally:
        with connect(server) as connection:
            connection.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))


def rows_of_others(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute(
        "SELECT date, id, sum_user_bytes FROM bytes_agg_user_1h WHERE id NOT LIKE 'forgotten-%' ORDER BY 1, 2"
    ).fetchall()


def test_row_34_a_user_of_whatever_id_is_forgotten_and_nobody_else(odd_world: World) -> None:
    lake = Lake(str(odd_world.lake))
    with connect(odd_world.url) as connection:
        before = sums(connection)
        others = rows_of_others(connection)
        assert {row[1] for row in others} == set(ODD)
        for user in ODD:
            forget(connection, lake, user, say=print)
            assert not places(connection, lake, user)
            others = [row for row in others if row[1] != user]
            assert rows_of_others(connection) == others
        assert sums(connection) == before
        assert differences(connection, odd_world.lake) == []
        for nobody in ("", " \t", "a\x00b", "\udcff"):
            with pytest.raises(NoIdentity, match="expected a user's id"):
                places(connection, lake, nobody)


def test_row_34_a_search_waits_for_the_files_that_a_stream_is_writing(settings: Settings) -> None:
    root = Path(settings.lake_uri)
    whole = root / "whole.parquet"
    being_written = root / "landing" / "1-attempt" / "_temporary" / "part-0.parquet"
    being_written.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{"id": USER}]), whole)
    being_written.write_bytes(whole.read_bytes()[:-8])
    moved = root / "landing" / "1-attempt" / "hour=2026112210" / "part-0.parquet"
    moved.parent.mkdir()

    def finish() -> None:
        being_written.write_bytes(whole.read_bytes())
        being_written.rename(moved)

    timer = threading.Timer(0.5, finish)
    timer.start()
    with connect(settings.postgres_url or "") as connection:
        found = LakeSearch(Lake(str(root)), USER, Search(USER, "")).everywhere(connection)
    timer.join()
    assert found == {"landing/1-attempt/hour=2026112210/part-0.parquet": 1}


def test_the_notices_of_a_user_are_removed_with_their_deliveries_and_nobody_elses(world: World) -> None:
    with connect(world.url) as connection:
        add_channel(connection, "ops")
        write(connection, "of-the-user", body={"user": USER}, user=USER)
        write(connection, "of-another", body={"user": KNOWN[3]}, user=KNOWN[3])
        write(connection, "of-nobody")
        lake = Lake(str(world.lake))
        assert places(connection, lake, USER).columns["public.outbox.user_id"] == 1
        forget(connection, lake, USER, say=print)
        assert owed(connection) == [("of-another", "ops"), ("of-nobody", "ops")]
        assert kept_with(connection, world.lake, USER) == set()
