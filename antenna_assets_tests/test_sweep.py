"""Row 10: a sweep removes what nothing needs, all of it and nothing else, whoever reads and writes meanwhile."""

import os
import random
import re
import shutil
import threading
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable
from psycopg import sql
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients import advisory_locks
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.closing_rule import NO_BACKLOG
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.domain.lifetimes import GRACE_PERIOD, LIVE_RETENTION, LONGEST_RUN, SAFE_AGE, AttemptTooOld
from antenna_assets.domain.schema import ASSETS, LANDED_SCHEMA, LIVE_TABLES, REJECTED_SCHEMA
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.ledger.batch import AttemptFile, BatchContent, BatchPlan
from antenna_assets.ledger.certificate import record_and_certify
from antenna_assets.ledger.commit import Observation, commit_batch
from antenna_assets.ledger.errors import HourExpired
from antenna_assets.ledger.files import generation_files
from antenna_assets.ledger.generations import expired_before, read_generation
from antenna_assets.ledger.head import claim_topic, read_head
from antenna_assets.ledger.hours_to_publish import hours_to_publish
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.ledger.seal import seal
from antenna_assets.operations.sweep import notices, retention
from antenna_assets.operations.sweep import run as sweep_module
from antenna_assets.operations.sweep.retention import Amount
from antenna_assets.operations.sweep.run import SweepError, SweepRunning, sweep
from antenna_assets.publishing import delta_commit
from antenna_assets.publishing.lake import Lake, LakeError
from antenna_assets.storage.project_files import docker_folder
from antenna_assets_tests.notices import add_channel, owed, write
from antenna_assets_tests.publications import publication

pytestmark = pytest.mark.services

MINUTE = timedelta(minutes=1)
HORIZON = timedelta(days=35)
NOW = datetime.now(UTC)
RECENT = hour_of(NOW) - 6 * HOUR
OLD = hour_of(NOW) - timedelta(days=40)


class House:
    """A lake and its ledger, filled as the stream and the assets do."""

    def __init__(self, connection: psycopg.Connection, postgres_url: str, root: Path) -> None:
        self.connection = connection
        self.url = postgres_url
        self.root = root
        self.lake = Lake(str(root))
        self.batch = 0
        claim_topic(connection, "devices", "id-1")

    def land(self, hour: datetime, rows: int = 3) -> BatchContent:
        """Files of the next batch: events of an hour and a rejected message. Nothing is committed."""
        folder = f"landing/{self.batch + 1}-{random.getrandbits(48):012x}"
        events = [
            dict(zip(LANDED_SCHEMA.names, (hour + MINUTE, "app", "u1", "a1", 10, 0, offset), strict=True))
            for offset in range(rows)
        ]
        rejected = [dict(zip(REJECTED_SCHEMA.names, (b"x", "not_json", None, 0, rows, hour), strict=True))]
        files = []
        for name, of_hour, content in (
            (f"hour={hour:%Y%m%d%H}/part-0.parquet", hour, pa.Table.from_pylist(events, LANDED_SCHEMA)),
            ("rejected/part-0.parquet", None, pa.Table.from_pylist(rejected, REJECTED_SCHEMA)),
        ):
            path = self.root / folder / name
            path.parent.mkdir(parents=True)
            pq.write_table(content, path)
            count = content.num_rows
            files.append(
                AttemptFile(
                    f"{folder}/{name}", of_hour, count, 10 * count if of_hour else 1, path.stat().st_size
                )
            )
        return BatchContent(files, {"not_json": 1}, {0: hour + 2 * HOUR}, hour)

    def commit(self, landed: BatchContent, clock: datetime) -> None:
        commit_batch(
            self.connection,
            BatchPlan(
                "devices",
                "id-1",
                self.batch + 1,
                clock,
                [OffsetRange(0, 10 * self.batch, 10 * self.batch + 10)],
            ),
            landed,
            Observation(clock, dict.fromkeys([0], NO_BACKLOG)),
            lateness=MINUTE,
        )
        self.batch += 1

    def receive(self, hour: datetime) -> None:
        """A batch of an hour, committed three hours after its beginning."""
        self.commit(self.land(hour), clock=hour + 3 * HOUR)

    def write(self, table: str, hour: datetime, generation: int) -> list[WrittenFile]:
        """A file of an attempt at an hour of the lake. Nothing is committed."""
        folder = Path(self.lake.new_folder(table, hour, generation))
        folder.mkdir(parents=True)
        path = folder / "part-0.parquet"
        pq.write_table(pa.table({"generation": [generation]}), path)
        return [WrittenFile(str(path), 1, path.stat().st_size)]

    def publish(self, hour: datetime, assets: Iterable[str] = ASSETS) -> None:
        """Seal the hour and publish its generation."""
        sealed = seal(self.connection, hour)
        for asset in assets:
            if asset in ("raw_parquet", "enriched_usage"):
                self.lake.replace_hour(
                    asset, hour, sealed.generation, self.write(asset, hour, sealed.generation)
                )
            record_and_certify(
                self.connection,
                [publication(asset, hour, sealed.generation, rows=sealed.rows, bytes_=sealed.bytes)],
            )

    def sweep(self, now: datetime = NOW, *, dry_run: bool = False) -> dict[str, Amount]:
        return sweep(
            self.url,
            str(self.root),
            dagster_home=self.root.parent / "dagster",
            horizon=HORIZON,
            now=now,
            dry_run=dry_run,
        )

    def listing(self) -> set[str]:
        """Every file and folder."""
        return {
            path.relative_to(self.root).as_posix() + ("/" if path.is_dir() else "")
            for path in self.root.rglob("*")
        }

    def files_of(self, table: str, version: int | None = None) -> list[str]:
        """The files of a version of a table, as another reader of Delta finds them."""
        return [unquote(uri) for uri in DeltaTable(self.lake.location(table), version=version).file_uris()]

    def reads(self) -> dict[str, list[tuple]]:
        """What readers see: the landed rows that the ledger names, and the lake's tables."""
        paths = [
            str(self.root / path)
            for (path,) in self.connection.execute("SELECT path FROM ledger.file WHERE kind = 'landed'")
        ]
        seen = {"landed": duckdb.execute("SELECT * FROM read_parquet(?) ORDER BY ALL", [paths]).fetchall()}
        for table in ("raw_parquet", "enriched_usage"):
            query = "SELECT year, month, day, hour, * FROM read_parquet(?) ORDER BY ALL"
            seen[table] = duckdb.execute(query, [self.files_of(table)]).fetchall()
        return seen


def age(path: Path, by: timedelta, *, now: datetime = NOW) -> None:
    """Let a file, or a folder with all it holds, look as if it was changed so long before `now`.

    That is the present that most tests sweep at, minutes behind the clock when a long suite comes here; a publication
    looks at the clock.
    """
    then = (now - by).timestamp()
    for one in (*path.rglob("*"), path):
        os.utime(one, (then, then), follow_symlinks=False)


def total(amounts: dict[str, Amount]) -> int:
    return sum(amount.count for amount in amounts.values())


def rows_of(connection: psycopg.Connection, *table: str) -> list[tuple]:
    query = sql.SQL("SELECT * FROM {} ORDER BY 1, 2").format(sql.Identifier(*table))
    return connection.execute(query).fetchall()


@pytest.fixture
def house(connection: psycopg.Connection, postgres_url: str, tmp_path: Path) -> House:
    """Two recent hours, of which one was restated, both published."""
    house = House(connection, postgres_url, tmp_path / "the lake")
    for hour in (RECENT, RECENT + HOUR, RECENT):
        house.receive(hour)
        house.publish(hour)
    with house.lake.scratch() as folder:
        (Path(folder) / "users.parquet").touch()
    return house


def plant(house: House, seed: int) -> None:
    """Litter in every folder: copies, truncated copies, what writers leave when they are killed, and empty folders."""
    chance = random.Random(seed)
    folders = sorted(path for path in house.root.rglob("*") if path.is_dir())
    files = sorted(house.root.rglob("*.parquet"))
    for number, folder in enumerate(folders):
        if folder.name == "_delta_log":
            (folder / f"_commit_{number}.json.tmp").write_text("{")
            (folder / f"{99:020}.json#1").write_text("{")
            continue
        content = chance.choice(files).read_bytes()
        (folder / f"copy {number} %20é.parquet").write_bytes(content)
        (folder / f"part-{number}-torn.parquet").write_bytes(content[: chance.randrange(len(content))])
        (
            folder / chance.choice([f".part-{number}.parquet.crc", "_SUCCESS", f"x{number}.tmp", "empty"])
        ).touch()
        (folder / f"folder {number}" / "in a folder").mkdir(parents=True)
    orphan = house.root / "landing" / f"9-{seed:012x}"
    shutil.copytree(files[0].parents[1], orphan)
    left_by_a_run = house.root / "scratch" / f"{seed:032x}"
    left_by_a_run.mkdir(parents=True)
    (left_by_a_run / "users.parquet").write_bytes(b"PAR1")
    (house.root / "landing" / ".probe-1").touch()
    (house.root / "landing" / "link").symlink_to(files[0])


@pytest.mark.parametrize("seed", range(8))
def test_row_10_planted_files_are_all_removed_and_nothing_else(house: House, seed: int) -> None:
    reads, clean = house.reads(), house.listing()
    plant(house, seed)
    age(house.root, SAFE_AGE + MINUTE)
    littered = house.listing()
    assert house.reads() == reads
    would_go = house.sweep(dry_run=True)
    assert house.listing() == littered
    assert house.sweep() == would_go
    # The sweep makes a version of its own in each table.
    versions = {f"{table}/_delta_log/{4:020}.json" for table in ("raw_parquet", "enriched_usage")}
    assert house.listing() == clean | versions
    assert total(would_go) == len(littered - clean)
    assert house.reads() == reads
    assert total(house.sweep()) == 0
    assert house.listing() == clean | versions


def test_row_10_what_is_young_stays_and_an_attempt_stays_as_a_whole(house: House) -> None:
    plant(house, 1)
    littered = house.listing()
    assert total(house.sweep()) == 0
    assert house.listing() == littered

    under_way = house.root / house.land(RECENT).files[0].path
    age(house.root, SAFE_AGE + MINUTE)
    age(under_way, SAFE_AGE - MINUTE)
    house.sweep()
    assert (under_way.parents[1] / "rejected" / "part-0.parquet").exists()
    assert under_way.exists()


def test_row_10_a_sweep_that_dies_is_done_by_the_next(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = house.listing()
    plant(house, 2)
    age(house.root, SAFE_AGE + MINUTE)

    def dies(found: list) -> None:
        found[0].path.unlink()
        raise PermissionError(13, "Permission denied", "the file")

    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "remove", dies)
        with pytest.raises(SweepError, match="the file cannot be swept: Permission denied; make it readable"):
            house.sweep()
    age(house.root, SAFE_AGE + MINUTE)
    house.sweep()
    assert {path for path in house.listing() if "_delta_log" not in path} == {
        path for path in clean if "_delta_log" not in path
    }


def test_row_10_one_sweep_at_a_time(house: House) -> None:
    with connect(house.url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [advisory_locks.SWEEP])
        with pytest.raises(SweepRunning, match="another sweep of this ledger is running"):
            house.sweep()
        house.sweep(dry_run=True)
    house.sweep()


def test_row_10_a_sweep_gives_its_lock_back_before_its_connection_ends(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(house.url) as kept, connect(house.url) as other:
        monkeypatch.setattr(sweep_module, "connect", lambda *_, **__: nullcontext(kept))
        house.sweep()
        assert not advisory_locks.is_held(other, advisory_locks.SWEEP)


def test_row_10_sweepers_at_once_leave_the_same_as_one(house: House) -> None:
    clean, reads = house.listing(), house.reads()
    plant(house, 3)
    age(house.root, SAFE_AGE + MINUTE)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            house.sweep()
        except SweepRunning:
            return
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert {path for path in house.listing() - clean if "_delta_log" not in path} == set()
    assert clean <= house.listing()
    assert house.reads() == reads


def test_row_10_a_sweep_waits_for_a_batch_that_is_being_committed(house: House) -> None:
    landed = house.land(RECENT)
    age(house.root, SAFE_AGE + MINUTE)
    swept = threading.Thread(target=house.sweep)
    with connect(house.url) as stream:
        with stream.transaction():
            read_head(stream, "devices", lock=True)
            swept.start()
            swept.join(0.5)
            assert swept.is_alive()
            for file in landed.files:
                kind = "landed" if file.hour else "rejected"
                stream.execute(
                    "INSERT INTO ledger.file VALUES (%s, %s, %s, 1, 1, 1, 1)", [file.path, kind, file.hour]
                )
        swept.join(60)
    assert all((house.root / file.path).exists() for file in landed.files)


def test_row_10_a_writer_that_holds_the_ledger_too_long_is_named(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "LONGEST_WAIT_FOR_LOCK", timedelta(milliseconds=100))
    with connect(house.url) as stream, stream.transaction():
        read_head(stream, "devices", lock=True)
        with pytest.raises(SweepError, match="a writer has held the ledger"):
            house.sweep()


def test_row_10_a_batch_begun_too_long_ago_is_not_committed(house: House) -> None:
    landed = house.land(RECENT)
    late = BatchContent(landed.files, begun=datetime.now(UTC) - LONGEST_RUN - MINUTE)
    with pytest.raises(AttemptTooOld, match="batch 4 was begun 2.0 hours ago.* run it again"):
        house.commit(late, clock=NOW)
    house.commit(BatchContent(landed.files, begun=datetime.now(UTC) - LONGEST_RUN + MINUTE), clock=NOW)


def test_row_10_files_written_too_long_ago_are_not_published(house: House) -> None:
    files, before = house.write("raw_parquet", RECENT, 3), house.reads()
    age(Path(files[0].path), LONGEST_RUN + MINUTE, now=datetime.now(UTC))
    with pytest.raises(AttemptTooOld, match="part-0.parquet was begun 2.0 hours ago"):
        house.lake.replace_hour("raw_parquet", RECENT, 3, files)
    assert house.reads() == before
    # They are removed, as the files of every attempt that fails.
    assert not Path(files[0].path).exists()
    files = house.write("raw_parquet", RECENT, 3)
    age(Path(files[0].path), LONGEST_RUN - MINUTE, now=datetime.now(UTC))
    house.lake.replace_hour("raw_parquet", RECENT, 3, files)


def test_row_10_a_publication_paused_while_its_files_are_swept_commits_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, before = house.write("raw_parquet", RECENT, 3), house.reads()
    path = Path(files[0].path)

    def paused(*_: object, **__: object) -> None:
        monkeypatch.undo()
        age(path, SAFE_AGE + MINUTE)
        Lake(str(house.root)).sweep("raw_parquet", now=datetime.now(UTC))
        assert not path.exists()

    monkeypatch.setattr(delta_commit, "require_young", paused)
    with pytest.raises(LakeError, match="raw_parquet cannot be written: .*No such file"):
        house.lake.replace_hour("raw_parquet", RECENT, 3, files)
    assert house.reads() == before


def test_row_10_replaced_files_stay_as_long_as_their_version_may_be_read(house: House) -> None:
    first = Path(house.files_of("raw_parquet", version=1)[0])
    assert str(first) not in house.files_of("raw_parquet")
    reads = house.reads()
    age(house.root, timedelta(days=7) - MINUTE)
    assert total(house.sweep()) == 0
    assert first.exists()
    age(house.root, timedelta(days=7) + MINUTE)
    assert (
        house.sweep()["files and folders in raw_parquet that no version of the last 7 days references"].count
        == 2
    )
    assert not first.parent.exists()
    assert house.reads() == reads


@pytest.fixture
def old_house(connection: psycopg.Connection, postgres_url: str, tmp_path: Path) -> House:
    """An hour and a rejected message beyond the horizon, and a recent hour; both published."""
    house = House(connection, postgres_url, tmp_path)
    for hour in (OLD, RECENT):
        house.receive(hour)
        house.publish(hour)
    return house


def expired(count: int, removed: int, house: House) -> bool:
    row = house.connection.execute("SELECT count(*), count(removed_at) FROM ledger.expired_file").fetchone()
    return row == (count, removed)


def test_row_10_landed_and_rejected_files_past_the_horizon_go_after_a_grace(old_house: House) -> None:
    house, before = old_house, old_house.listing()
    tables = ("hour", "hour_generation", "batch", "rejection", "batch_offset")
    facts = {table: rows_of(house.connection, "ledger", table) for table in tables}
    attempt = house.connection.execute("SELECT path FROM ledger.file WHERE hour = %s", [OLD]).fetchall()[0][0]
    attempt = "/".join(attempt.split("/")[:2])

    would_go = house.sweep(dry_run=True)
    assert expired(0, 0, house)
    swept = house.sweep()
    assert swept == would_go
    assert swept["landed files past the horizon, removed after a grace period"].count == 1
    assert swept["rejected files past the horizon, removed after a grace period"].count == 1
    assert expired(2, 0, house)

    age(house.root, SAFE_AGE + MINUTE)
    house.sweep(NOW + GRACE_PERIOD - MINUTE)
    assert house.listing() == before
    would_go = house.sweep(NOW + GRACE_PERIOD, dry_run=True)
    assert house.listing() == before
    assert house.sweep(NOW + GRACE_PERIOD) == would_go
    assert would_go["expired files, after their grace period"].count == 2
    assert house.listing() == {path for path in before if not path.startswith(attempt)}
    assert expired(2, 2, house)
    assert house.sweep(NOW + GRACE_PERIOD)["expired files, after their grace period"] == Amount(0, 0)
    assert {table: rows_of(house.connection, "ledger", table) for table in facts} == facts
    # The quiet hours between the two are all that is left to publish.
    assert {OLD, RECENT}.isdisjoint(todo.hour for todo in hours_to_publish(house.connection, limit=5000))
    assert expired_before(house.connection) == OLD + HOUR


def test_row_10_an_hour_is_never_built_from_what_is_left_of_it(old_house: House) -> None:
    house = old_house
    sealed = read_generation(house.connection, OLD, 1)
    assert len(generation_files(house.connection, sealed)) == 1
    house.sweep()
    with pytest.raises(HourExpired, match=f"the landed files of {OLD:%Y-%m-%d-%H:00} are past the horizon"):
        generation_files(house.connection, sealed)
    assert seal(house.connection, OLD) == sealed
    with pytest.raises(HourExpired):
        house.receive(OLD)
    # Should rows come to it by another way, they make no generation.
    house.connection.execute("UPDATE ledger.hour SET rows = rows + 1 WHERE hour = %s", [OLD])
    with pytest.raises(HourExpired):
        seal(house.connection, OLD)
    assert house.connection.execute(
        "SELECT count(*) FROM ledger.hour_generation WHERE hour = %s", [OLD]
    ).fetchone() == (1,)


@pytest.mark.parametrize("case", ["dirty", "not sealed", "an asset is missing", "within the horizon"])
def test_row_10_an_hour_that_needs_its_files_keeps_them(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path, case: str
) -> None:
    house = House(connection, postgres_url, tmp_path)
    # The hour after the one that the horizon cuts at the last sweep, for a batch whose clock is as far behind as may be.
    hour = hour_of(NOW + MINUTE - HORIZON - LONGEST_RUN) if case == "within the horizon" else OLD
    house.receive(hour)
    if case != "not sealed":
        house.publish(hour, ASSETS[:-1] if case == "an asset is missing" else ASSETS)
    if case == "dirty":
        house.receive(hour)
    age(house.root, SAFE_AGE + MINUTE)
    house.sweep()
    house.sweep(NOW + MINUTE)
    named = "SELECT path FROM ledger.file WHERE hour = %s"
    paths = [path for (path,) in connection.execute(named, [hour])]
    assert len(paths) == (2 if case == "dirty" else 1)
    assert all((house.root / path).exists() for path in paths)


def test_row_10_live_windows_go_after_their_retention(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 3)
    bound = NOW - LIVE_RETENTION - LONGEST_RUN
    for name in LIVE_TABLES:
        for number in range(12):
            for key in ("one", "two"):
                house.connection.execute(
                    sql.SQL("INSERT INTO {} VALUES (%s, %s, 1)").format(sql.Identifier(name)),
                    [bound + (number - 8) * 5 * MINUTE, key],
                )
    kept = {name: rows_of(house.connection, "public", name)[16:] for name in LIVE_TABLES}
    would_go = house.sweep(dry_run=True)
    assert would_go["rows of bytes_agg_app past their retention"].count == 16
    assert house.sweep() == would_go
    assert {name: rows_of(house.connection, "public", name) for name in LIVE_TABLES} == kept


def test_row_10_live_sums_skip_windows_past_their_retention(house: House) -> None:
    since = NOW - LIVE_RETENTION
    live = {name: [(since - 5 * MINUTE, "late", 1), (since, "just in time", 2)] for name in LIVE_TABLES}
    house.commit(BatchContent(live=live), clock=NOW)
    for name in LIVE_TABLES:
        assert rows_of(house.connection, "public", name) == [(since, "just in time", 2)]


def test_row_10_the_command_shows_what_would_go_and_removes_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = house.root / "landing" / "9-abc" / "part-0.parquet"
    orphan.parent.mkdir()
    orphan.write_bytes(b"12345")
    age(orphan.parent, SAFE_AGE + MINUTE)
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", house.url)
    monkeypatch.setenv("ANTENNA_LAKE", str(house.root))
    # The file and its folder.
    line = re.compile(r"orphaned files and folders in landing and scratch +2 +5")
    run = CliRunner().invoke(app, ["sweep", "--dry-run"], env={"COLUMNS": "120"})
    assert (run.exit_code, "would be removed" in run.output, orphan.exists()) == (0, True, True)
    assert line.search(run.output)
    run = CliRunner().invoke(app, ["sweep"])
    assert (run.exit_code, "removed" in run.output, orphan.exists()) == (0, True, False)


def test_notices_go_after_their_retention_unless_a_channel_waits_for_them(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "ROWS_AT_ONCE", 2)
    write(house.connection, "nobodys")
    add_channel(house.connection, "ops")
    add_channel(house.connection, "mail")
    write(house.connection, "sent", "dead", "half", "waiting")
    house.connection.execute(
        "UPDATE delivery SET state = 'delivered', delivered_at = now() FROM outbox WHERE number = outbox"
        " AND (id = 'sent' OR (id = 'half' AND channel = 'ops'))"
    )
    house.connection.execute(
        "UPDATE delivery SET state = 'dead' FROM outbox WHERE number = outbox AND id = 'dead'"
    )
    now = datetime.now(UTC)
    kind = "notices that were sent or given up, past their retention"
    assert house.sweep(now + timedelta(days=89))[kind].count == 0
    would_go = house.sweep(now + timedelta(days=91), dry_run=True)[kind]
    assert (would_go.count, would_go.bytes) == (
        3,
        3 * len('{"type":"quota.raised","summary":"80 % is used"}'),
    )
    assert house.sweep(now + timedelta(days=91))[kind] == would_go
    assert owed(house.connection) == [
        ("half", "mail"),
        ("half", "ops"),
        ("waiting", "mail"),
        ("waiting", "ops"),
    ]


def test_alerts_go_with_the_notices_once_their_period_is_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "ROWS_AT_ONCE", 2)
    now = datetime.now(UTC)
    for id_, days, resolved in (
        *((f"over-{number}", 91, True) for number in range(3)),
        ("not-seen", 91, False),
        ("newer", 89, True),
    ):
        house.connection.execute(
            "INSERT INTO alert VALUES (%(id)s, 'hour', %(ends)s - interval '1 hour', 80, %(ends)s, 'live', 8, 10, 1,"
            " %(resolved)s, false, %(ends)s, %(ends)s)",
            {"id": id_, "ends": now - timedelta(days=days), "resolved": resolved},
        )
    kind = "alerts that are resolved, past the retention of notices"
    would_go = house.sweep(now, dry_run=True)[kind]
    assert would_go.count == 3
    assert would_go.bytes > 0
    # A cool-down is counted from its alert, however long it is.
    house.connection.execute("UPDATE alert_rule SET cool_down = '92 days' WHERE period = 'month'")
    assert house.sweep(now)[kind].count == 0
    house.connection.execute("UPDATE alert_rule SET cool_down = '0'")
    assert house.sweep(now)[kind] == would_go
    assert house.sweep(now)[kind].count == 0
    assert house.connection.execute("SELECT id FROM alert ORDER BY id").fetchall() == [
        ("newer",),
        ("not-seen",),
    ]


def test_row_10_no_run_outlives_the_longest() -> None:
    monitoring = yaml.safe_load((docker_folder() / "dagster.yaml").read_text(encoding="utf-8"))[
        "run_monitoring"
    ]
    assert timedelta(seconds=monitoring["max_runtime_seconds"]) == LONGEST_RUN
    assert SAFE_AGE >= 2 * LONGEST_RUN
    assert GRACE_PERIOD > LONGEST_RUN
