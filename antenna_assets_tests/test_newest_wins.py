"""Rows 28 and 29 on the ledger and the lake alone: what is published is the newest that was asked for, and an hour is done
when its newest certificate names its newest publications, all of one version of the users."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import psycopg
import pytest

from antenna_assets.clients.migrations import migrate
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR
from antenna_assets.domain.schema import ASSETS, HOURLY_TABLES
from antenna_assets.errors import Superseded
from antenna_assets.ledger.certificate import newest_certificate, record_and_certify
from antenna_assets.ledger.hours_to_publish import hours_to_publish
from antenna_assets.ledger.publications import abandon_publication, begin_publication
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.claims.history import hours_are_fresh
from antenna_assets_tests.publications import publication
from antenna_assets_tests.test_upgrade import MIGRATIONS, program_of_level

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
FIVE_WITH_USERS = ASSETS[1:]


@pytest.fixture
def sealed(connection: psycopg.Connection) -> psycopg.Connection:
    """A ledger with a closed hour of three empty generations."""
    connection.execute(
        "INSERT INTO ledger.hour (hour, closed_at, closed_by, generation) VALUES (%s, now(), 'clock', 3)",
        [TEN],
    )
    connection.execute(
        "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
        " SELECT %s, number, 0, 0, 0 FROM generate_series(1, 3) AS number",
        [TEN],
    )
    return connection


def publish(
    connection: psycopg.Connection,
    generation: int,
    users: int,
    assets: Sequence[str] = ASSETS,
) -> list[str]:
    """Publish assets of the hour; those that were superseded."""
    return [
        asset
        for asset in assets
        if record_and_certify(connection, [publication(asset, TEN, generation, users_version=users)])
    ]


def to_publish(connection: psycopg.Connection) -> bool:
    return bool(hours_to_publish(connection, limit=10))


def held(connection: psycopg.Connection) -> set[tuple[int, int | None]]:
    """Generation and users' version that the heads of the five assets that look at users are at."""
    return set(
        connection.execute(
            "SELECT generation, users_version FROM ledger.publication_head WHERE asset <> 'raw_parquet'"
        ).fetchall()
    )


def certified(connection: psycopg.Connection) -> tuple[int, int] | None:
    found = newest_certificate(connection, TEN)
    return found and (found.generation, found.users_version)


def test_row_29_an_older_users_version_never_replaces_a_newer_one_at_any_table(
    sealed: psycopg.Connection,
) -> None:
    assert publish(sealed, 3, 21) == []
    for asset in FIVE_WITH_USERS:
        superseded = record_and_certify(sealed, [publication(asset, TEN, 3, users_version=20)])
        assert "holds version 21 of the users; the older version 20 was not" in str(superseded[TEN])
    assert held(sealed) == {(3, 21)}
    assert certified(sealed) == (3, 21)
    # The same once more is no older one, and raw events know no users.
    assert publish(sealed, 3, 21) == []
    assert not to_publish(sealed)


@pytest.mark.parametrize("order", list(permutations([(2, 20), (2, 21), (3, 20), (3, 21)])))
def test_row_29_publications_of_two_users_versions_meet_in_every_order_and_the_newest_is_left(
    sealed: psycopg.Connection, order: Sequence[tuple[int, int]]
) -> None:
    """By generation first, then by users' version. No order ends as done with users older than were published before."""
    for generation, users in order:
        publish(sealed, generation, users)
    assert held(sealed) == {(3, 21)}
    assert certified(sealed) == (3, 21)
    assert not to_publish(sealed)


def test_row_29_a_newer_generation_of_older_users_is_published_and_then_asked_for_again(
    sealed: psycopg.Connection,
) -> None:
    publish(sealed, 2, 21)
    assert publish(sealed, 3, 20) == []
    assert certified(sealed) == (3, 20)
    assert to_publish(sealed), "version 21 was asked for, and the hour is back at 20"
    assert publish(sealed, 3, 21) == []
    assert certified(sealed) == (3, 21)
    assert not to_publish(sealed)


@pytest.mark.parametrize("finished", range(1, 5))
def test_row_28_a_publication_of_other_users_that_dies_half_way_is_asked_for_until_it_is_finished(
    sealed: psycopg.Connection, finished: int
) -> None:
    publish(sealed, 3, 20)
    assert not to_publish(sealed)
    publish(sealed, 3, 21, FIVE_WITH_USERS[:finished])
    assert to_publish(sealed)
    assert not hours_are_fresh(sealed, TEN + 2 * HOUR).passed
    states = sealed.execute("SELECT state FROM hour_trust WHERE hour = %s", [TEN]).fetchall()
    assert states == [("publishing again",)]
    publish(sealed, 3, 21, FIVE_WITH_USERS[finished:])
    assert not to_publish(sealed)
    assert hours_are_fresh(sealed, TEN + 2 * HOUR).passed
    assert sealed.execute("SELECT state FROM hour_trust WHERE hour = %s", [TEN]).fetchall() == [
        ("published",)
    ]


def test_row_28_a_run_that_dies_between_the_lake_and_the_ledger_leaves_the_hour_to_be_asked_for(
    sealed: psycopg.Connection,
) -> None:
    publish(sealed, 3, 20)
    begin_publication(sealed, "enriched_usage", TEN, 21)
    assert to_publish(sealed)
    # The same users again would leave the lake's newer ones behind.
    attempt = begin_publication(sealed, "enriched_usage", TEN, 20)
    record_and_certify(
        sealed, [replace(publication("enriched_usage", TEN, 3, users_version=20), attempt=attempt)]
    )
    assert to_publish(sealed)
    attempt = begin_publication(sealed, "enriched_usage", TEN, 21)
    record_and_certify(
        sealed, [replace(publication("enriched_usage", TEN, 3, users_version=21), attempt=attempt)]
    )
    assert to_publish(sealed)
    publish(sealed, 3, 21)
    assert not to_publish(sealed)


def test_row_28_of_two_attempts_the_earlier_one_does_not_end_the_later_one(
    sealed: psycopg.Connection,
) -> None:
    publish(sealed, 3, 20)
    first, second = (begin_publication(sealed, "raw_parquet", TEN, None) for _ in range(2))
    record_and_certify(sealed, [replace(publication("raw_parquet", TEN, 3), attempt=first)])
    assert to_publish(sealed)
    abandon_publication(sealed, "raw_parquet", TEN, first)
    assert to_publish(sealed)
    record_and_certify(sealed, [replace(publication("raw_parquet", TEN, 3, version=8), attempt=second)])
    assert not to_publish(sealed)


def test_row_29_a_certificate_names_the_newest_users_though_an_older_version_was_attempted_later(
    sealed: psycopg.Connection,
) -> None:
    publish(sealed, 3, 20)
    newer = begin_publication(sealed, "enriched_usage", TEN, 21)
    older = begin_publication(sealed, "enriched_usage", TEN, 20)
    for attempt, users, version in ((older, 20, 8), (newer, 21, 9)):
        one = publication("enriched_usage", TEN, 3, users_version=users, version=version)
        assert not record_and_certify(sealed, [replace(one, attempt=attempt)])
    publish(sealed, 3, 21, [*HOURLY_TABLES])
    found = newest_certificate(sealed, TEN)
    assert found is not None
    assert found.users_version == 21
    assert found.content["published"]["enriched_usage"]["delta_version"] == 9


def test_row_28_an_attempt_that_was_superseded_in_the_lake_leaves_nothing_to_do(
    sealed: psycopg.Connection,
) -> None:
    publish(sealed, 3, 21)
    attempt = begin_publication(sealed, "enriched_usage", TEN, 20)
    assert to_publish(sealed)
    abandon_publication(sealed, "enriched_usage", TEN, attempt)
    assert not to_publish(sealed)


def test_row_28_a_certificate_does_not_wait_for_a_publication_under_way(
    sealed: psycopg.Connection, postgres_url: str
) -> None:
    publish(sealed, 3, 20)
    sealed.execute("SET lock_timeout = '5s'")
    with connect(postgres_url) as other, other.transaction():
        other.execute("SELECT FROM ledger.publication_head WHERE asset = 'bytes_agg_app_1h' FOR UPDATE")
        publish(sealed, 3, 20, ["bytes_agg_antenna_1h"])
    assert not to_publish(sealed)


def test_row_29_the_lake_holds_the_newest_generation_then_users_then_attempt(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))

    def publish_in_lake(generation: int, users: int, attempt: int) -> bool:
        try:
            lake.replace_hour(
                "enriched_usage", TEN, generation, [], tags={"users_version": users}, attempt=attempt
            )
        except Superseded:
            return False
        return True

    assert publish_in_lake(1, 21, 5)
    assert not publish_in_lake(1, 20, 6)
    assert publish_in_lake(1, 21, 5)
    assert not publish_in_lake(1, 21, 4)
    assert publish_in_lake(1, 22, 3)
    assert publish_in_lake(2, 20, 7)
    assert not publish_in_lake(1, 30, 8)
    assert publish_in_lake(2, 20, 8)
    found = lake.hour("enriched_usage", TEN)
    assert (found.generation, found.tags) == (2, {"users_version": 20})


def test_row_29_the_version_of_the_users_counts_their_changes_in_the_order_in_which_they_are_seen(
    connection: psycopg.Connection, postgres_url: str
) -> None:
    """Two changes at once: whoever reads version N sees the changes of all versions up to N, and no other."""
    read = "SELECT (SELECT version FROM ledger.users_version), array_agg(quota ORDER BY id) FROM user_metadata WHERE quota < 3"
    ((before, none),) = connection.execute(read).fetchall()
    assert none is None
    ids = [
        id_ for (id_,) in connection.execute("SELECT id FROM user_metadata ORDER BY id LIMIT 2").fetchall()
    ]
    with connect(postgres_url) as first, connect(postgres_url) as second:
        with first.transaction():
            first.execute("UPDATE user_metadata SET quota = 1 WHERE id = %s", [ids[0]])
            second.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                second.execute("UPDATE user_metadata SET quota = 2 WHERE id = %s", [ids[1]])
            assert connection.execute(read).fetchall() == [(before, None)]
        assert connection.execute(read).fetchall() == [(before + 1, [1])]
        second.execute("UPDATE user_metadata SET quota = 2 WHERE id = %s", [ids[1]])
    assert connection.execute(read).fetchall() == [(before + 2, [1, 2])]


OLDER_HOURS = {
    # What each asset was published with before: for raw_parquet nothing, for the others versions of the users in their order.
    "whole": ([20], [20], 105),
    "one table died half-way": ([20], [20, 21], 105),
    "an older version came last": ([21, 20], [21, 20], 105),
    "certified past the horizon": ([20], [20], 0),
}


def test_row_28_hours_that_an_older_version_left_half_published_are_asked_for_after_an_upgrade(
    empty_database: str, tmp_path: Path
) -> None:
    level = MIGRATIONS.index("0015_hour_state.sql")
    with connect(empty_database) as connection:
        with program_of_level(level, tmp_path / "sql"):
            migrate(connection)
        for number, (tables, usage, landed) in enumerate(OLDER_HOURS.values()):
            hour = TEN + number * HOUR
            connection.execute(
                "INSERT INTO ledger.hour (hour, rows, closed_at, closed_by, generation) VALUES (%s, 105, now(), 'clock', 1)",
                [hour],
            )
            connection.execute("INSERT INTO ledger.hour_generation VALUES (%s, 1, 1, 105, 0, now())", [hour])
            for asset in ASSETS:
                versions = (
                    [None] if asset == "raw_parquet" else usage if asset == "enriched_usage" else tables
                )
                connection.execute("INSERT INTO ledger.publication_head VALUES (%s, %s, 1)", [asset, hour])
                for version in versions:
                    connection.execute(
                        "INSERT INTO ledger.publication (asset, hour, generation, rows, bytes, users_version, run_id)"
                        " VALUES (%s, %s, 1, 0, 0, %s, 'run')",
                        [asset, hour, version],
                    )
            text = f'{{"content":{{"landed":{{"bytes":0,"files":0,"late_rows":0,"rows":{landed}}},"offsets":[]}}}}'
            connection.execute(
                "INSERT INTO ledger.certificate VALUES (%s, %s, 1, %s, now(), %s, '', '')",
                [number + 1, hour, tables[-1], text],
            )
        migrate(connection)
        asked_for = {one.hour for one in hours_to_publish(connection, limit=9)}
    assert asked_for == {TEN + number * HOUR for number in (1, 2, 3)}
