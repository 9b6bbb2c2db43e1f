"""proofs.md, row 21: a chain of certificates that was written anew as a whole is found by the hashes kept elsewhere."""

import json
from pathlib import Path

import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.ledger.anchors import AnchorsError, anchor_of, append_anchor, read_anchors
from antenna_assets.ledger.certificate import newest_of_chain
from antenna_assets.ledger.chain import canonical, sha256_of
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.difference import Difference
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, HOURS, Land, World, publish

pytestmark = pytest.mark.services


def write_the_chain_anew(connection: psycopg.Connection) -> None:
    """What the database's owner can do: another time of issue in the first certificate, and all hashes after it."""
    connection.execute("ALTER TABLE ledger.certificate DISABLE TRIGGER certificates_stay")
    previous = ""
    rows = connection.execute("SELECT number, text FROM ledger.certificate ORDER BY number").fetchall()
    for number, text in rows:
        signed = json.loads(text) | {"previous_sha256": previous}
        if number == 1:
            signed["issued_at"] = "2026-01-01T00:00:00+00:00"
        text, before = canonical(signed), previous
        previous = sha256_of(text)
        connection.execute(
            "UPDATE ledger.certificate SET text = %s, previous_sha256 = %s, sha256 = %s, issued_at = %s WHERE number = %s",
            [text, before, previous, signed["issued_at"], number],
        )
    connection.execute("UPDATE ledger.certificate_head SET sha256 = %s", [previous])
    connection.execute("ALTER TABLE ledger.certificate ENABLE TRIGGER certificates_stay")


def differences(connection: psycopg.Connection, world: World, file: Path | None) -> list[Difference]:
    anchors = read_anchors(file) if file is not None else []
    return verify(connection, Lake(str(world.lake)), kept_since=FIRST, anchors=anchors).differences


def test_row_21_a_chain_that_was_written_anew_as_a_whole_is_found_by_an_anchor(
    certified_world: World, tmp_path: Path
) -> None:
    file = tmp_path / "anchors"
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        newest = newest_of_chain(connection)
        assert append_anchor(file, newest) is not None
        assert append_anchor(file, newest) is None
        assert differences(connection, world, file) == []
        write_the_chain_anew(connection)
        assert differences(connection, world, None) == []
        (found,) = differences(connection, world, file)
        assert (found.what, found.expected) == (
            f"certificate {newest.number}, its anchored SHA-256",
            newest.sha256,
        )
        with pytest.raises(AnchorsError, match="its chain was rewritten"):
            append_anchor(file, newest_of_chain(connection))


def test_row_21_an_anchor_holds_while_the_chain_grows_and_finds_one_that_was_cut_short(
    certified_world: World, tmp_path: Path
) -> None:
    file = tmp_path / "anchors"
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        append_anchor(file, newest_of_chain(connection))
        Land.on(connection, world.lake)({FIRST: 1})
        publish(world, HOURS[:1])
        newest = newest_of_chain(connection)
        append_anchor(file, newest)
        assert [anchor.number for anchor in read_anchors(file)] == [newest.number - 1, newest.number]
        assert differences(connection, world, file) == []
        connection.execute("ALTER TABLE ledger.certificate DISABLE TRIGGER certificates_stay")
        connection.execute("DELETE FROM ledger.certificate WHERE number = %s", [newest.number])
        connection.execute(
            "UPDATE ledger.certificate_head SET number = %s, sha256 = %s",
            [newest.number - 1, newest.previous_sha256],
        )
        told = [(one.what, one.found) for one in differences(connection, world, file)]
        assert (f"certificate {newest.number}, its anchored SHA-256", "nothing") in told


def test_a_line_that_was_taken_out_of_a_file_of_anchors_is_found(
    certified_world: World, tmp_path: Path
) -> None:
    file = tmp_path / "anchors"
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        append_anchor(file, newest_of_chain(connection))
        for _ in range(2):
            Land.on(connection, world.lake)({FIRST: 1})
            publish(world, HOURS[:1])
            append_anchor(file, newest_of_chain(connection))
        first, _, third = file.read_text().splitlines()
        file.write_text(f"{first}\n{third}\n")
        (found,) = differences(connection, world, file)
        assert "SHA-256 of the line before it" in found.what
        with pytest.raises(AnchorsError, match="does not follow the one before it"):
            append_anchor(file, newest_of_chain(connection))


def test_anchors_are_read_from_a_log_with_other_lines(certified_world: World, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with connect(certified_world.url) as connection:
        line = anchor_of(newest_of_chain(connection)).line
        log.write_bytes(
            f"Nov 28 host dagster[7]: INFO - hourly_usage - {line}\nsomething else\n".encode() + b"\xff\n"
        )
        assert differences(connection, certified_world, log) == []


@pytest.mark.parametrize("text", ["", "certificate 1 sha256 abc\n"])
def test_a_file_without_anchors_is_an_error_and_not_a_proof(tmp_path: Path, text: str) -> None:
    file = tmp_path / "anchors"
    file.write_text(text)
    with pytest.raises(AnchorsError, match="found none"):
        read_anchors(file)
    with pytest.raises(AnchorsError, match="cannot be read"):
        read_anchors(tmp_path / "nowhere")


def test_a_line_that_was_cut_off_by_a_full_disk_is_followed_by_a_whole_one(
    certified_world: World, tmp_path: Path
) -> None:
    file = tmp_path / "anchors"
    file.write_text("2026-11-22T10:00:00Z certificate 1 sha2")
    with connect(certified_world.url) as connection:
        append_anchor(file, newest_of_chain(connection))
        assert len(read_anchors(file)) == 1
        assert differences(connection, certified_world, file) == []


def test_the_run_that_brings_a_certificate_logs_its_anchor(
    certified_world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        Land.on(connection, world.lake)({FIRST: 1})
        publish(world, HOURS[:1], log_level="INFO")
        log = tmp_path / "log"
        log.write_text("".join(capfd.readouterr()))
        newest = newest_of_chain(connection)
        assert {(anchor.number, anchor.sha256) for anchor in read_anchors(log)} == {
            (newest.number, newest.sha256)
        }
