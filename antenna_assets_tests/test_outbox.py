"""`outbox`: what is written with a notice, in one transaction, and what can never be done to it."""

import psycopg
import pytest
from psycopg import sql

from antenna_assets.clients.postgres import connect
from antenna_assets.ledger.outbox import NewNotice, write_notices
from antenna_assets_tests.notices import add_channel, notice, owed, write

pytestmark = pytest.mark.services


def test_a_notice_is_owed_to_each_channel_of_its_level_and_kind(connection: psycopg.Connection) -> None:
    add_channel(connection, "all")
    add_channel(connection, "loud", levels=["critical"])
    add_channel(connection, "quotas", kinds=["quota.raised", "quota.resolved"])
    write(connection, "a", kind="quota.raised", level="critical")
    write(connection, "b", kind="quota.raised", level="info")
    write(connection, "c", kind="other", level="info")
    assert owed(connection) == [
        ("a", "all"),
        ("a", "loud"),
        ("a", "quotas"),
        ("b", "all"),
        ("b", "quotas"),
        ("c", "all"),
    ]


def test_a_notice_for_one_channel_is_owed_to_it_alone_whatever_it_selects(
    connection: psycopg.Connection,
) -> None:
    add_channel(connection, "all")
    add_channel(connection, "loud", levels=["critical"])
    write(connection, "t", kind="test", level="info", only_channel="loud")
    assert owed(connection) == [("t", "loud")]


def test_a_channel_gets_no_notice_from_before_it_and_a_removed_one_none_after(
    connection: psycopg.Connection,
) -> None:
    write(connection, "old")
    add_channel(connection, "ops")
    write(connection, "new")
    connection.execute("UPDATE alert_channel SET removed_at = now()")
    write(connection, "later")
    assert owed(connection) == [("new", "ops")]


def test_notices_whose_transactions_end_in_another_order_are_all_owed(
    connection: psycopg.Connection, postgres_url: str
) -> None:
    add_channel(connection, "ops")
    with connect(postgres_url) as slow, slow.transaction():
        write(slow, "first")
        write(connection, "second")
        assert owed(connection) == [("second", "ops")]
    assert owed(connection) == [("first", "ops"), ("second", "ops")]


def test_a_notice_that_is_rolled_back_is_owed_to_nobody(connection: psycopg.Connection) -> None:
    add_channel(connection, "ops")
    with connection.transaction(force_rollback=True):
        write(connection, "never")
    assert owed(connection) == []
    assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def test_an_id_is_written_once_and_the_first_body_stays(connection: psycopg.Connection) -> None:
    add_channel(connection, "ops")
    assert write_notices(connection, []) == 0
    assert write_notices(connection, [notice("a", body={"n": 1}), notice("b", body={"é": [None]})]) == 2
    assert write_notices(connection, [notice("a", body={"n": 2}), notice("c", body={"n": 3})]) == 1
    rows = connection.execute("SELECT id, body FROM outbox ORDER BY id").fetchall()
    assert rows == [("a", '{"n":1}'), ("b", '{"é":[null]}'), ("c", '{"n":3}')]
    assert owed(connection) == [("a", "ops"), ("b", "ops"), ("c", "ops")]


@pytest.mark.parametrize(
    "statement",
    ["UPDATE outbox SET body = '{}'", "TRUNCATE outbox CASCADE", "UPDATE outbox SET user_id = NULL"],
)
def test_a_notice_is_never_changed(connection: psycopg.Connection, statement: str) -> None:
    write(connection, "a")
    with pytest.raises(psycopg.errors.RaiseException, match="a notice is never changed"):
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    "wrong",
    [
        notice("with.a.dot"),
        notice("two\r\nlines"),
        notice("x" * 101),
        notice(kind="Quota raised"),
        notice(body={"large": "x" * 65536}),
        NewNotice("a", "quota.raised", "loud", {}),  # type: ignore[arg-type]
    ],
)
def test_what_no_channel_could_send_is_refused(connection: psycopg.Connection, wrong: NewNotice) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        write_notices(connection, [wrong])


def test_who_writes_notices_needs_no_right_to_read_them_or_to_see_what_is_owed(
    connection: psycopg.Connection,
) -> None:
    add_channel(connection, "ops")
    connection.execute("GRANT INSERT ON outbox TO antenna_dashboards")
    connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier("antenna_dashboards")))
    assert write_notices(connection, [notice("a")]) == 1
    connection.execute("RESET ROLE")
    assert owed(connection) == [("a", "ops")]
