"""Alerts from Kafka to the outbox: by the real stream, real publications and the watch, also all at once."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR as AN_HOUR
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.operations.alerts.headroom import Headroom
from antenna_assets.operations.alerts.watch import Look, look
from antenna_assets.settings import Settings
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.end_to_end.producing import HOUR, event, produce
from antenna_assets_tests.end_to_end.runs import instance, publish_what_the_sensor_asks_for
from antenna_assets_tests.stream_engines import EACH_ENGINE

pytestmark = pytest.mark.services

NewStream = Callable[..., Stream]
MINUTE = timedelta(minutes=1)


@pytest.fixture
def engine() -> Iterator[DuckDBEngine]:
    made = DuckDBEngine(threads=1, memory_limit="256MiB")
    yield made
    made.close()


def notices(connection: psycopg.Connection) -> list[tuple[str, int, int]]:
    """Kind, percentage and used bytes of each notice about user `u1`."""
    return connection.execute(
        "SELECT kind, (body::json ->> 'percent')::int, (body::json ->> 'used')::int FROM outbox"
        " WHERE user_id = 'u1' ORDER BY number"
    ).fetchall()


@EACH_ENGINE
def test_an_alert_is_raised_by_the_stream_confirmed_by_dagster_and_corrected_by_late_rows(
    settings: Settings, new_stream: NewStream, engine: DuckDBEngine
) -> None:
    with connect(settings.postgres_url or "") as connection:
        connection.execute("INSERT INTO user_metadata VALUES ('u1', 'U', 'u1@example.com', 100)")
        connection.execute("UPDATE alert_rule SET percents = '{80, 100}'")

        headroom = Headroom()

        def seen(after: timedelta) -> Look:
            return look(connection, engine, settings.lake_uri, headroom, HOUR + after)

        produce(settings, [event(50), event(35)])
        new_stream().read_available()
        # The stream has read past the hour's end by the real clock.
        assert seen(10 * MINUTE).notices == 2
        with instance() as dagster:
            publish_what_the_sensor_asks_for(dagster)
            assert seen(AN_HOUR + 3 * MINUTE).notices == 1
            produce(settings, [event(5)])
            new_stream().read_available()
            assert seen(AN_HOUR + 4 * MINUTE).notices == 0
            publish_what_the_sensor_asks_for(dagster)
            seen(AN_HOUR + 5 * MINUTE)
            produce(settings, [event(500)])
            new_stream().read_available()
            publish_what_the_sensor_asks_for(dagster)
            seen(AN_HOUR + 6 * MINUTE)
        assert notices(connection) == [
            ("quota.raised", 80, 85),
            ("quota.resolved", 80, 85),
            ("quota.confirmed", 80, 85),
            ("quota.corrected", 80, 90),
            ("quota.corrected", 80, 590),
        ]


def test_row_42_stream_publications_and_watches_at_once_raise_each_alert_once(
    settings: Settings, new_stream: NewStream, engine: DuckDBEngine
) -> None:
    url = settings.postgres_url or ""
    rounds, failures, done = 12, [], threading.Event()
    with connect(url) as connection:
        connection.execute("INSERT INTO user_metadata VALUES ('u1', 'U', 'u1@example.com', 100)")

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        return run

    def stream() -> None:
        for _ in range(rounds):
            produce(settings, [event(10)])
            new_stream().read_available()
        done.set()

    def publish() -> None:
        with instance() as dagster:
            while not done.is_set():
                publish_what_the_sensor_asks_for(dagster)

    def watch() -> None:
        with connect(url) as connection:
            headroom = Headroom()
            while not done.is_set():
                try:
                    look(connection, engine, settings.lake_uri, headroom, HOUR + 10 * MINUTE)
                except psycopg.errors.SerializationFailure:
                    # Another watch was faster: only one may run, and the second one of this test does.
                    continue

    work = (stream, publish, publish, watch, watch)
    threads = [threading.Thread(target=guarded(one)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    with instance() as dagster:
        publish_what_the_sensor_asks_for(dagster)
    with connect(url) as connection:
        look(connection, engine, settings.lake_uri, Headroom(), HOUR + 10 * MINUTE)
        found = notices(connection)
        raised = Counter(percent for kind, percent, _ in found if kind == "quota.raised")
        # What was published before it was reached is history.
        assert set(raised.values()) <= {1}
        rows = connection.execute("SELECT percent, figure, used::int FROM alert ORDER BY percent").fetchall()
        assert rows == [(percent, "published", 10 * rounds) for percent in sorted(raised)]
        assert [used for kind, _, used in found if kind == "quota.corrected"][-1:] in ([], [10 * rounds])
        ids = connection.execute("SELECT count(*), count(DISTINCT id) FROM outbox").fetchall()
        assert ids[0][0] == ids[0][1]
