"""Row 21: `antenna verify` finds every seeded corruption of a certified lakehouse, and says what it is."""

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.ledger.certificate import NoCertificate
from antenna_assets.ledger.chain import sha256_of
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.difference import Difference
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, HOURS, Land, World
from antenna_assets_tests.corruptions import CORRUPTIONS, corrupt

pytestmark = pytest.mark.services

SEEDS = 3
"""So many in the long form, one in the suite."""


def differences(world: World) -> list[Difference]:
    with connect(world.url) as connection:
        return verify(connection, Lake(str(world.lake)), kept_since=FIRST).differences


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_row_21_verify_finds_the_corruption(
    certified_world: World, tmp_path: Path, name: str, proving: bool
) -> None:
    for seed in range(SEEDS if proving else 1):
        with certified_world.copy(tmp_path / str(seed)) as world:
            with connect(world.url) as connection:
                corrupt(world, connection, name, seed)
            assert differences(world), f"{name} with seed {seed} was not found"


def antenna(monkeypatch: pytest.MonkeyPatch, world: World, *arguments: str) -> Result:
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
    monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner().invoke(app, arguments)


def test_row_21_a_difference_names_hour_and_row_and_both_values(
    certified_world: World, tmp_path: Path
) -> None:
    with certified_world.copy(tmp_path) as world:
        with connect(world.url) as connection:
            ((before,),) = connection.execute(
                "UPDATE bytes_agg_antenna_1h SET sum_antenna_bytes = sum_antenna_bytes + 1"
                " WHERE date = %s AND antenna_id = 'north' RETURNING sum_antenna_bytes - 1",
                [FIRST],
            ).fetchall()
        assert differences(world) == [
            Difference(
                hour_key(FIRST),
                "bytes_agg_antenna_1h, antenna_id north",
                f"sum_antenna_bytes {before}",
                f"sum_antenna_bytes {before + 1}",
            )
        ]


def test_row_26_an_hour_that_was_opened_and_closed_again_is_no_difference(
    certified_world: World, tmp_path: Path
) -> None:
    with certified_world.copy(tmp_path) as world:
        with connect(world.url) as connection:
            connection.execute("UPDATE ledger.hour SET closed_at = closed_at + interval '1 year'")
        assert differences(world) == []


def test_row_21_a_table_that_was_added_after_the_certificate_is_pending(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = dataclasses.replace(HOURLY_TABLES["bytes_agg_app_1h"], name="bytes_agg_new_1h")
    monkeypatch.setattr("antenna_assets.verify.run.HOURLY_TABLES", {**HOURLY_TABLES, added.name: added})
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        found = verify(connection, Lake(str(world.lake)), kept_since=FIRST)
    assert found.differences == []
    assert found.pending == {
        hour_key(hour): "bytes_agg_new_1h is newer than the certificate: run the hour again" for hour in HOURS
    }


def test_row_21_a_lost_file_that_no_certificate_covers_yet_is_named(
    certified_world: World, tmp_path: Path
) -> None:
    """Of late rows that wait to be published, and of an hour that is open."""
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        Land.on(connection, world.lake)({FIRST: 5, HOURS[2] + HOUR: 7})
        assert differences(world) == []
        lost = connection.execute("SELECT path, hour, rows FROM ledger.file ORDER BY batch DESC LIMIT 2")
        files = sorted(lost.fetchall(), key=lambda file: file[1])
        for path, *_ in files:
            (world.lake / path).unlink()
        found = differences(world)
        assert [(one.hour, one.what, one.expected) for one in found] == [
            (hour_key(hour), f"file {path}", f"{rows} rows") for path, hour, rows in files
        ]


def test_row_21_a_lost_file_of_a_batch_without_an_accepted_message_is_named(
    certified_world: World, tmp_path: Path
) -> None:
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        Land.on(connection, world.lake)({}, rejected=["blank", "blank"], newest=FIRST)
        assert differences(world) == []
        found = connection.execute("SELECT batch, path FROM ledger.file ORDER BY batch DESC LIMIT 1")
        ((batch, path),) = found.fetchall()
        (world.lake / path).unlink()
        assert [(one.hour, one.what, one.expected) for one in differences(world)] == [
            (f"batch {batch}", f"file {path}", "2 rows")
        ]


def test_row_21_wrong_rows_that_somebody_certified_are_found_by_computing_them_again(
    certified_world: World, tmp_path: Path
) -> None:
    """Not only is nothing changed since: what was certified follows from the files."""
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        corrupt(world, connection, "chain_forged_to_its_end", 0)
        found = differences(world)
        assert {difference.hour for difference in found} == {hour_key(FIRST)}
        assert found[0].what.startswith("ledger, landed, ")


def test_verify_on_the_command_line_is_quiet_about_clean_hours_and_exits_1_otherwise(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with certified_world.copy(tmp_path) as world:
        clean = antenna(monkeypatch, world, "verify")
        assert (clean.exit_code, clean.output.splitlines()) == (
            0,
            ["verified 3 hours and 3 certificates", "everything is as certified"],
        )
        next(world.lake.glob("enriched_usage/**/*.parquet")).unlink()
        wrong = antenna(monkeypatch, world, "verify")
        assert wrong.exit_code == 1
        assert "no file" in wrong.output
        quiet = hour_key(HOURS[2])
        assert antenna(monkeypatch, world, "verify", "--from", quiet, "--to", quiet).exit_code == 0


def test_certificate_prints_the_hour_and_its_text_is_what_the_hash_is_of(
    certified_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = hour_key(FIRST)
    shown = antenna(monkeypatch, certified_world, "certificate", hour)
    text = antenna(monkeypatch, certified_world, "certificate", hour, "--json").output.strip()
    assert shown.exit_code == 0
    assert f"of hour {hour} UTC" in shown.output
    assert "1 blank, 2 not_json" in shown.output
    assert sha256_of(text) in shown.output
    none = antenna(monkeypatch, certified_world, "certificate", "2026-01-01-00:00")
    assert isinstance(none.exception, NoCertificate)
    assert "hour 2026-01-01-00:00 has no certificate" in str(none.exception)


def test_row_21_there_are_at_least_100_corruptions() -> None:
    assert len(CORRUPTIONS) * SEEDS >= 100
