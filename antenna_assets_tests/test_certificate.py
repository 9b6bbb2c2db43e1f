"""Certificates: who issues them, what they say, how they chain, and that two last publishers issue one."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.schema import ASSETS
from antenna_assets.ledger.certificate import (
    NoCertificate,
    certify,
    newest_certificate,
    require_certificate,
)
from antenna_assets.ledger.chain import canonical, sha256_of
from antenna_assets.ledger.publications import Publication, record_publication
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.run import Verified, verify
from antenna_assets_tests.certified import FIRST, HOURS, Land, World, publish
from antenna_assets_tests.publications import publication

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture
def sealed(connection: psycopg.Connection) -> psycopg.Connection:
    """A ledger with an hour of two empty generations."""
    connection.execute(
        "INSERT INTO ledger.hour (hour, closed_at, closed_by, generation) VALUES (%s, now(), 'clock', 2)",
        [TEN],
    )
    connection.execute(
        "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
        " SELECT %s, number, 0, 0, 0 FROM generate_series(1, 2) AS number",
        [TEN],
    )
    return connection


def publish_assets(connection: psycopg.Connection, *publications: Publication) -> list[int]:
    """Publish one after the other; the numbers of the certificates that were issued."""
    issued = []
    for of in publications:
        with connection.transaction():
            record_publication(connection, of)
            certificates = certify(connection, {of.hour: of.generation})
            issued += [one.number for one in certificates.values()]
    return issued


def all_assets(generation: int = 1, *, users_version: int = 1) -> list[Publication]:
    return [publication(asset, TEN, generation, users_version=users_version) for asset in ASSETS]


def verified(world: World, *, kept_since: datetime = FIRST) -> Verified:
    with connect(world.url) as connection:
        return verify(connection, Lake(str(world.lake)), kept_since=kept_since)


def test_the_publication_that_completes_the_hour_issues_the_certificate(sealed: psycopg.Connection) -> None:
    *first_five, last = all_assets()
    assert publish_assets(sealed, *first_five) == []
    with pytest.raises(NoCertificate, match="hour 2026-11-22-10:00 has no certificate: one is issued when"):
        require_certificate(sealed, TEN)
    assert publish_assets(sealed, last) == [1]
    assert require_certificate(sealed, TEN).generation == 1


def test_the_order_of_the_six_does_not_matter(sealed: psycopg.Connection) -> None:
    assert publish_assets(sealed, *reversed(all_assets())) == [1]


def test_publishing_the_same_again_issues_nothing_and_something_else_a_new_one(
    sealed: psycopg.Connection,
) -> None:
    publish_assets(sealed, *all_assets())
    assert publish_assets(sealed, *all_assets()) == []
    assert publish_assets(sealed, publication("raw_parquet", TEN, version=8)) == [2]
    # A users' version is certified when the last of the five assets that look at users has it.
    assert publish_assets(sealed, *all_assets(users_version=5)) == [3]
    assert require_certificate(sealed, TEN).users_version == 5


def test_a_new_generation_is_certified_once_all_six_have_it(sealed: psycopg.Connection) -> None:
    publish_assets(sealed, *all_assets())
    assert publish_assets(sealed, *all_assets(2)) == [2]
    assert require_certificate(sealed, TEN).generation == 2


def test_publications_without_content_are_not_certified(sealed: psycopg.Connection) -> None:
    assert publish_assets(sealed, *(replace(of, content=None) for of in all_assets())) == []


def test_a_lake_table_is_certified_at_its_highest_version_whoever_recorded_it_last(
    sealed: psycopg.Connection,
) -> None:
    publish_assets(
        sealed, publication("raw_parquet", TEN, version=9), publication("raw_parquet", TEN, version=8)
    )
    publish_assets(sealed, *all_assets()[1:])
    assert require_certificate(sealed, TEN).content["published"]["raw_parquet"]["delta_version"] == 9


def test_each_certificate_holds_the_hash_of_the_one_before_it(sealed: psycopg.Connection) -> None:
    publish_assets(sealed, *all_assets())
    first = require_certificate(sealed, TEN)
    publish_assets(sealed, *all_assets(2))
    second = require_certificate(sealed, TEN)
    assert (first.number, first.previous_sha256) == (1, "")
    assert (second.number, second.previous_sha256) == (2, first.sha256)
    assert json.loads(second.text)["previous_sha256"] == first.sha256
    assert [sha256_of(of.text) for of in (first, second)] == [first.sha256, second.sha256]
    assert sealed.execute("SELECT number, sha256 FROM ledger.certificate_head").fetchall() == [
        (2, second.sha256)
    ]


@pytest.mark.parametrize(
    "change", ["UPDATE ledger.certificate SET text = ''", "DELETE FROM ledger.certificate"]
)
def test_a_certificate_cannot_be_changed(sealed: psycopg.Connection, change: str) -> None:
    publish_assets(sealed, *all_assets())
    with pytest.raises(psycopg.errors.RaiseException, match="a certificate is never changed or removed"):
        sealed.execute(change.encode())


def test_canonical_json_is_one_text_for_one_value() -> None:
    assert canonical({"b": [1, None], "a": {"z": "caf\u00e9 \u2028", "y": 2**53 + 1}}) == (
        '{"a":{"y":9007199254740993,"z":"caf\\u00e9 \\u2028"},"b":[1,null]}'
    )
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})


@pytest.mark.parametrize("attempt", range(5))
def test_row_18_of_two_last_publishers_at_once_exactly_one_issues_the_certificate(
    sealed: psycopg.Connection, postgres_url: str, attempt: int
) -> None:
    *first_four, one, other = all_assets()
    publish_assets(sealed, *first_four)
    both_recorded = threading.Barrier(2)
    issued: list[int] = []

    def last(of: Publication) -> None:
        with connect(postgres_url) as connection, connection.transaction():
            record_publication(connection, of)
            both_recorded.wait(timeout=20)
            certificates = certify(connection, {of.hour: of.generation})
            issued.extend(one.number for one in certificates.values())

    threads = [threading.Thread(target=last, args=[of]) for of in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert issued == [1], attempt
    assert sealed.execute("SELECT count(*) FROM ledger.certificate").fetchone() == (1,)


def test_row_18_issuing_locks_no_row_that_the_stream_writes(
    sealed: psycopg.Connection, postgres_url: str
) -> None:
    *first_five, last = all_assets()
    publish_assets(sealed, *first_five)
    with connect(postgres_url) as stream, stream.transaction():
        stream.execute("SELECT FROM ledger.hour FOR UPDATE")
        stream.execute("LOCK TABLE ledger.head, ledger.batch, ledger.file, ledger.hour IN ROW EXCLUSIVE MODE")
        sealed.execute("SET lock_timeout = '5s'")
        assert publish_assets(sealed, last) == [1]


def test_a_certificate_says_what_the_hour_is_made_of(world: World) -> None:
    with connect(world.url) as connection:
        content = require_certificate(connection, FIRST).content
        usage = connection.execute(
            "SELECT count(*), sum(sum_user_bytes)::bigint FROM bytes_agg_user_1h WHERE date = %s AND email IS NULL",
            [FIRST],
        ).fetchone()
    assert usage is not None
    assert (content["hour"], content["generation"], content["up_to_batch"]) == (hour_key(FIRST), 1, 4)
    assert {name: content["landed"][name] for name in ("files", "rows", "late_rows")} == {
        "files": 3,
        "rows": 105,
        "late_rows": 5,
    }
    assert content["batches"]["batches"] == 3
    assert content["batches"]["rows"] == 60 + 70 + 8
    assert content["rejected"] == {"blank": 1, "not_json": 2}
    # Batch 3 brought nothing of this hour, so the offsets have a gap.
    assert [(of["partition"], of["from"], of["until"]) for of in content["offsets"]] == [
        (0, 0, 63 + 70),
        (0, 63 + 70 + 51, 63 + 70 + 51 + 8),
    ]
    assert (content["unknown_users"]["users"], content["unknown_users"]["bytes"]) == usage
    assert content["unknown_users"]["rows"] > 0
    for asset in ASSETS[:5]:
        assert content["published"][asset]["bytes"] == content["landed"]["bytes"]
    assert content["published"].keys() == set(ASSETS)
    assert [content["published"][asset]["rows"] for asset in ASSETS[:2]] == [105, 105]


def test_row_21_verify_finds_nothing_on_clean_data(world: World) -> None:
    found = verified(world)
    assert found.differences == []
    assert found.pending == {}
    assert (found.hours, found.certificates) == (len(HOURS), len(HOURS))


def test_row_21_late_rows_are_no_difference_and_their_generation_gets_its_own_certificate(
    world: World,
) -> None:
    with connect(world.url) as connection:
        land = Land(connection, world.lake, seed=5)
        land.batch, land.offset = connection.execute(
            "SELECT max(batch), max(until_offset) FROM ledger.batch_offset"
        ).fetchall()[0]
        land({FIRST: 4}, newest=FIRST + 3 * HOUR)
    found = verified(world)
    assert found.differences == []
    assert found.pending == {hour_key(FIRST): "dirty: generation 1 is without 4 late rows"}
    publish(world, HOURS[:1])
    found = verified(world)
    assert (found.differences, found.pending) == ([], {})
    with connect(world.url) as connection:
        second = require_certificate(connection, FIRST)
    assert (second.generation, second.content["landed"]["late_rows"]) == (2, 9)


def test_row_21_an_hour_run_again_and_other_users_are_no_difference(world: World) -> None:
    with connect(world.url) as connection:
        connection.execute("UPDATE user_metadata SET quota = 1")
    assert verified(world).differences == []
    publish(world, HOURS[:1])
    found = verified(world)
    assert (found.differences, found.pending) == ([], {})
    with connect(world.url) as connection:
        again = newest_certificate(connection, FIRST)
    assert again is not None
    assert again.number > len(HOURS)


def test_row_21_an_hour_past_its_retention_is_verified_without_its_landing(world: World) -> None:
    with connect(world.url) as connection:
        connection.execute("DELETE FROM ledger.file WHERE hour = %s", [FIRST])
    found = verified(world, kept_since=FIRST + HOUR)
    assert found.differences == []
    assert found.not_recomputed == [hour_key(FIRST)]
    assert verified(world).differences != []


def test_row_21_an_hour_that_is_not_wholly_published_is_no_difference(
    sealed: psycopg.Connection, tmp_path: Path
) -> None:
    publish_assets(sealed, *all_assets(2)[:3])
    found = verify(sealed, Lake(str(tmp_path)), kept_since=TEN)
    assert found.differences == []
    assert found.pending == {hour_key(TEN): "not wholly published"}
