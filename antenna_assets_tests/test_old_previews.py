"""Dagster's events of older versions are cleaned of users once, and nobody is forgotten before that."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.advisory_locks import OLD_PREVIEWS, locked
from antenna_assets.clients.postgres import connect, dagster_url
from antenna_assets.defs import old_previews
from antenna_assets.defs.assets.plot import bars
from antenna_assets.defs.instance_storage import PooledPostgresStorage
from antenna_assets.defs.run_lock import hold
from antenna_assets.ledger.old_previews import OldPreviewsLeft, require_cleaned
from antenna_assets.operations import doctor
from antenna_assets.operations.forget import fence
from antenna_assets.operations.forget.identity import is_unfinished
from antenna_assets.operations.forget.places import places
from antenna_assets.operations.forget.run import forget
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import load_settings
from antenna_assets_tests.certified import FIRST
from antenna_assets_tests.instances import instance_in_postgres
from antenna_assets_tests.serving_rows import hour

USER, ANOTHER = "00000000-0000-0000-0000-000000000003", "another <1>"
LABEL = "00000000\u2026-000000000003"
POINTS = ("old_previews.events_cleaned",)

OF_USERS = ("raw_parquet", "enriched_usage", "bytes_agg_user_1h", "users_over_quota_1h")


def shown(column: str, *names: str, drawn: tuple[str, ...] = ()) -> dict[str, dg.MetadataValue]:
    """A preview and a plot, as every version makes them; the plot has the same names, unless others are drawn."""
    picture = base64.b64encode(bars(dict.fromkeys(drawn or names, 7)).encode()).decode()
    return {
        "preview": dg.MetadataValue.table([dg.TableRecord({column: name, "bytes": 7}) for name in names]),
        "most bytes": dg.MetadataValue.md(f"![most bytes](data:image/svg+xml;base64,{picture})"),
    }


def event(column: str, *names: str) -> str:
    return dg.serialize_value(dg.AssetMaterialization("an_asset", metadata=shown(column, *names)))


def test_records_with_a_users_id_are_dropped_and_others_stay() -> None:
    assert json.loads(old_previews.without_users(event("id", USER, ANOTHER), bars=False)) == {
        **json.loads(event("id", USER, ANOTHER)),
        "metadata_entries": [
            {**entry, "entry_data": {**entry["entry_data"], "records": []}}
            if entry["label"] == "preview"
            else entry
            for entry in json.loads(event("id", USER, ANOTHER))["metadata_entries"]
        ],
    }
    for kept in (event("rank", "1.", "2."), event("app", "id", USER), '{"id": "7"}'):
        assert old_previews.without_users(kept, bars=False) == kept


def test_pictures_of_bars_are_replaced_by_one_that_says_so() -> None:
    cleaned = old_previews.without_users(event("id", USER), bars=True)
    (picture,) = old_previews._PICTURE.findall(cleaned)
    assert "This picture was removed: it showed users." in base64.b64decode(picture).decode()
    assert old_previews.without_users(cleaned, bars=True) == cleaned
    assert dg.deserialize_value(cleaned, dg.AssetMaterialization).metadata.keys() == {"preview", "most bytes"}


def start_dagster(postgres_url: str) -> None:
    storage = PooledPostgresStorage(dagster_url(postgres_url))
    for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        part._engine.dispose()  # type: ignore[attr-defined]


def run_of(
    connection: psycopg.Connection,
    on: dg.DagsterInstance,
    *,
    older: bool,
    during: Callable[[str], None] = lambda _run: None,
    assets: tuple[str, ...] = (*OF_USERS, "bytes_agg_app_1h"),
) -> None:
    """A run that publishes an hour and shows it: as an older version, by ids, or as this one, by ranks."""
    names = (USER, ANOTHER) if older else ("1.", "2.")

    def asset(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def body(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            publish(connection, name, context.run.run_id, older=older)
            during(context.run.run_id)
            column = "app" if name == "bytes_agg_app_1h" else "id" if older else "rank"
            # The plots of the lake's tables show antennas.
            drawn = ("antenna",) if name in ("raw_parquet", "enriched_usage") else ()
            return dg.MaterializeResult(metadata=shown(column, *names, drawn=drawn))

        return body

    assert dg.materialize([asset(name) for name in assets], instance=on).success


def publish(connection: psycopg.Connection, asset: str, run: str, *, older: bool) -> None:
    """Record a publication; an older version names the columns of its time."""
    column, value = ("", "") if older else (", shown_with_users", ", false")
    connection.execute(
        "INSERT INTO ledger.publication (asset, hour, generation, rows, bytes, run_id"  # noqa: S608
        f"{column}) VALUES (%s, %s, 1, 1, 10, %s{value})".encode(),
        [asset, FIRST, run],
    )


def naming(connection: psycopg.Connection, *names: str, but: str = "bytes_agg_app_1h") -> set[str]:
    """The columns of Dagster's tables where a name stands, as text or in a picture, but for one asset's events."""
    found = set()
    for table, column in connection.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'dagster'"
        " AND data_type IN ('text', 'character varying')"
    ).fetchall():
        for (text,) in connection.execute(
            f"SELECT row.{column} FROM dagster.{table} AS row"  # noqa: S608
            " WHERE strpos(row::text, %s) = 0".encode(),
            [but],
        ).fetchall():
            pictures = [base64.b64decode(svg).decode() for svg in old_previews._PICTURE.findall(text or "")]
            if any(name in part for name in names for part in (text or "", *pictures)):
                found.add(f"{table}.{column}")
    return found


PLACES = {"event_logs.event", "asset_keys.last_materialization"}


@pytest.fixture
def ledger(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> psycopg.Connection:
    """A ledger with a sealed hour, which the commands find."""
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path))
    monkeypatch.setenv("ANTENNA_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres_url)
    hour(connection, FIRST, 10)
    return connection


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["forget-user", *arguments])
    return result.exit_code, " ".join((result.output + str(result.exception or "")).split())


def finding() -> doctor.Finding:
    (found,) = [one for one in doctor.findings(load_settings()) if one.name == "Dagster's old previews"]
    return found


def recorded(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute(
        "SELECT cleaned_to, cleaning_to, event, unfinished_runs FROM ledger.old_previews"
    ).fetchall()


@pytest.mark.services
def test_row_34_a_start_of_dagster_cleans_old_events_and_until_then_nobody_is_forgotten(
    ledger: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    with instance_in_postgres(postgres_url, tmp_path / "dagster") as on:
        run_of(ledger, on, older=True)
        assert naming(ledger, USER, LABEL, ANOTHER) == PLACES
        apps = ledger.execute(
            "SELECT event FROM dagster.event_logs WHERE event LIKE '%%agg_app%%'"
        ).fetchall()
        for arguments in ([USER, "--dry-run"], [USER, "--yes"]):
            code, said = command(*arguments)
            assert code != 0
            assert "found no start of Dagster since the upgrade" in said
        with pytest.raises(OldPreviewsLeft, match="start Dagster's daemon"):
            forget(ledger, Lake(str(tmp_path / "lake")), USER, say=print)
        assert ledger.execute("SELECT count(*) FROM ledger.forgotten").fetchall() == [(0,)]
        assert not (tmp_path / "lake").exists()
        assert (finding().ok, finding().fix) == (False, "start Dagster's daemon")

        start_dagster(postgres_url)
        assert naming(ledger, USER, LABEL, ANOTHER, "another &lt;1&gt;") == set()
        assert (
            ledger.execute("SELECT event FROM dagster.event_logs WHERE event LIKE '%%agg_app%%'").fetchall()
            == apps
        )
        assert recorded(ledger) == [(5, None, 0, 0)]
        require_cleaned(ledger)
        assert finding().ok
        code, said = command(USER, "--yes")
        assert code == 0
        assert said.endswith("the id is nowhere any more")
        # Dagster's pages still show the hour.
        latest = on.get_latest_materialization_event(dg.AssetKey("bytes_agg_user_1h"))
        assert latest is not None
        assert latest.asset_materialization is not None
        assert latest.asset_materialization.metadata["preview"] == dg.MetadataValue.table(
            [], schema=dg.TableSchema([dg.TableColumn("id"), dg.TableColumn("bytes", "int")])
        )


@pytest.mark.services
def test_a_run_of_an_older_version_in_progress_is_waited_for(
    ledger: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    def during(_run: str) -> None:
        start_dagster(postgres_url)
        assert recorded(ledger) == [(0, None, 0, 1)]
        code, said = command(USER, "--yes")
        assert code != 0
        assert "found 1 unfinished runs of the older version at Dagster's last start" in said
        assert "restart Dagster's daemon" in finding().fix

    with instance_in_postgres(postgres_url, tmp_path / "dagster") as on:
        run_of(ledger, on, older=True, during=during, assets=("bytes_agg_user_1h",))
    assert naming(ledger, USER, LABEL) == PLACES
    assert command(USER, "--yes")[0] != 0
    start_dagster(postgres_url)
    assert naming(ledger, USER, LABEL, ANOTHER) == set()
    assert recorded(ledger) == [(1, None, 0, 0)]
    assert command(USER, "--yes")[0] == 0


@pytest.mark.services
def test_a_worker_of_a_run_that_dagster_has_given_up_is_waited_for(
    ledger: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    with instance_in_postgres(postgres_url, tmp_path / "dagster") as on:
        run_of(ledger, on, older=True, assets=("raw_parquet",))
    ((run,),) = ledger.execute("SELECT run_id FROM dagster.runs").fetchall()
    with hold(postgres_url, run):
        start_dagster(postgres_url)
        assert recorded(ledger) == [(0, None, 0, 1)]
    start_dagster(postgres_url)
    assert recorded(ledger) == [(1, None, 0, 0)]


@pytest.mark.services
def test_a_publication_that_is_being_committed_is_waited_for(
    ledger: psycopg.Connection, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_previews, "WRITERS_SECONDS", 0.2)
    start_dagster(postgres_url)
    with connect(postgres_url) as slow:
        with slow.transaction():
            publish(slow, "raw_parquet", "slow", older=True)
            publish(ledger, "raw_parquet", "quick", older=True)
            start_dagster(postgres_url)
            assert recorded(ledger) == [(0, None, 0, 1)]
        start_dagster(postgres_url)
    assert recorded(ledger) == [(2, None, 0, 0)]


@pytest.mark.services
def test_an_older_version_that_runs_again_after_a_rollback_is_noticed_and_cleaned_at_the_next_start(
    ledger: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    with instance_in_postgres(postgres_url, tmp_path / "dagster") as on:
        run_of(ledger, on, older=True, assets=("enriched_usage",))
        start_dagster(postgres_url)
        require_cleaned(ledger)
        run_of(ledger, on, older=True, assets=("enriched_usage",))
    code, said = command(USER, "--dry-run")
    assert code != 0
    assert "an older version that has published since Dagster's last start" in said
    start_dagster(postgres_url)
    assert naming(ledger, USER) == set()
    require_cleaned(ledger)


@pytest.mark.services
def test_an_older_version_that_publishes_while_a_user_is_forgotten_is_noticed(
    ledger: psycopg.Connection, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_dagster(postgres_url)
    raise_fence = fence.raise_fence

    def late(*of: Any) -> None:
        publish(ledger, "bytes_agg_user_1h", "old", older=True)
        raise_fence(*of)

    monkeypatch.setattr(fence, "raise_fence", late)
    with pytest.raises(OldPreviewsLeft):
        forget(ledger, Lake(str(tmp_path / "lake")), USER, say=print)
    assert is_unfinished(ledger, USER)
    monkeypatch.undo()
    start_dagster(postgres_url)
    forget(ledger, Lake(str(tmp_path / "lake")), USER, say=print)


@pytest.mark.services
def test_plots_of_this_version_stay_and_its_runs_are_not_waited_for(
    ledger: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    query = "SELECT id, event FROM dagster.event_logs WHERE run_id = %s ORDER BY id"
    with instance_in_postgres(postgres_url, tmp_path / "dagster") as on:
        run_of(ledger, on, older=True)
        run_of(ledger, on, older=False, during=lambda _run: start_dagster(postgres_url))
        ((run,),) = ledger.execute("SELECT run_id FROM dagster.runs ORDER BY id DESC LIMIT 1").fetchall()
        before = ledger.execute(query, [run]).fetchall()
        require_cleaned(ledger)
        # Everything is looked through again.
        ledger.execute("UPDATE ledger.old_previews SET cleaned_to = 0")
        start_dagster(postgres_url)
    require_cleaned(ledger)
    assert ledger.execute(query, [run]).fetchall() == before
    assert "most bytes" in str(before)
    assert naming(ledger, "This picture was removed") == {"event_logs.event"}


START = (
    "import sys; from antenna_assets_tests.test_old_previews import start_dagster; start_dagster(sys.argv[1])"
)


@pytest.mark.services
def test_a_cleaning_that_is_killed_in_the_middle_is_resumed_by_the_next_start(
    ledger: psycopg.Connection, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance_in_postgres(postgres_url, tmp_path / "dagster") as on:
        for _ in range(2):
            run_of(ledger, on, older=True)
    # Each old event is in a batch of its own.
    ledger.execute("UPDATE dagster.event_logs SET id = id * 1000 - 1")
    killed = subprocess.run(
        [sys.executable, "-c", START, postgres_url],
        env={**os.environ, "ANTENNA_CRASH_AT": f"{POINTS[0]}:30"},
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    assert recorded(ledger) == [(0, 10, 30_000, 0)]
    left = ledger.execute(
        "SELECT count(*), count(*) FILTER (WHERE id <= 30000) FROM dagster.event_logs WHERE event LIKE %s"
        " AND step_key <> 'bytes_agg_app_1h'",
        [f"%{USER}%"],
    ).fetchall()[0]
    assert left[0] > 0
    assert left[1] == 0
    code, said = command(USER, "--yes")
    assert code != 0
    assert "found a cleaning that has come to event 30,000" in said

    seen = []
    clean_events = old_previews._clean_events
    monkeypatch.setattr(old_previews, "_clean_events", lambda *of: (seen.append(of[1]), clean_events(*of)))
    start_dagster(postgres_url)
    assert seen[0] == 30_000
    assert naming(ledger, USER, LABEL, ANOTHER) == set()
    assert recorded(ledger) == [(10, None, 0, 0)]


@pytest.mark.services
def test_one_process_cleans_and_the_others_go_on(
    ledger: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    with instance_in_postgres(postgres_url, tmp_path / "dagster") as on:
        run_of(ledger, on, older=True, assets=("raw_parquet",))
    with locked(ledger, OLD_PREVIEWS):
        start_dagster(postgres_url)
        assert recorded(ledger) == []
    start_dagster(postgres_url)
    assert recorded(ledger) == [(1, None, 0, 0)]


@pytest.mark.services
def test_on_a_new_installation_a_user_is_forgotten_before_dagster_ever_ran_and_after(
    ledger: psycopg.Connection, postgres_url: str, tmp_path: Path
) -> None:
    assert command(USER, "--yes")[0] == 0
    assert finding().ok
    with instance_in_postgres(postgres_url, tmp_path / "dagster") as on:
        run_of(ledger, on, older=False)
        code, said = command("unknown", "--dry-run")
        assert (code, said) == (0, "the id is nowhere")
        assert not places(ledger, Lake(str(tmp_path / "lake")), USER)
    assert recorded(ledger) == []


@pytest.mark.services
def test_dagster_starts_before_the_migration_and_with_a_login_without_the_rights(
    empty_database: str, ledger: psycopg.Connection, postgres_url: str
) -> None:
    with connect(empty_database) as connection:
        connection.execute("CREATE SCHEMA dagster")
    start_dagster(empty_database)
    publish(ledger, "raw_parquet", "old", older=True)
    ledger.execute("ALTER TABLE ledger.old_previews RENAME TO elsewhere")
    start_dagster(postgres_url)
    ledger.execute("ALTER TABLE ledger.elsewhere RENAME TO old_previews")
    with pytest.raises(OldPreviewsLeft, match="no start of Dagster since the upgrade by a login"):
        require_cleaned(ledger)
