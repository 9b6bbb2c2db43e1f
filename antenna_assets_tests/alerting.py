"""A ledger with landed files, live sums and published hours of a few users, as small as alerts need it."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.clients.clock import database_now
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.domain.schema import LANDED_SCHEMA
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.ledger.batch import AttemptFile, BatchContent, BatchPlan
from antenna_assets.ledger.commit import Observation, commit_batch
from antenna_assets.ledger.head import claim_topic
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.ledger.user_hours import make_user_days
from antenna_assets.operations.alerts.headroom import Headroom
from antenna_assets.operations.alerts.watch import Look, fill, look

WINDOW = timedelta(minutes=5)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Event = tuple[str, datetime, int]
"""User, time and bytes."""


def well_within_an_hour(connection: psycopg.Connection) -> datetime:
    """PostgreSQL's clock, once the running hour lasts for a minute more."""
    while True:
        now = database_now(connection)
        left = hour_of(now) + HOUR - now
        if left > timedelta(minutes=1):
            return now
        sleep(left.total_seconds())


class Alerting:
    """Lands events, publishes hours and looks; `now` is the clock, which the caller moves."""

    def __init__(self, connection: psycopg.Connection, lake: Path, now: datetime) -> None:
        self.connection = connection
        self.lake = lake
        self.now = now
        self.events: list[Event] = []
        self.engine = DuckDBEngine(threads=1, memory_limit="256MiB")
        self.headroom = Headroom()
        self._batches = self._certificates = 0
        claim_topic(connection, "devices", "id")
        connection.execute("UPDATE ledger.alert_head SET looked_at = %s", [now])

    def user(self, id_: str, quota: int | None, **others: object) -> None:
        self.connection.execute(
            "INSERT INTO user_metadata (id, name, email, quota, plan, zone) VALUES (%s, %s, %s, %s, %s, %s)",
            [id_, id_, f"{id_}@example.com", quota, others.get("plan"), others.get("zone")],
        )

    def quota(self, id_: str, period: str, quota: int | None, since: datetime | str = "-infinity") -> None:
        self.connection.execute(
            "INSERT INTO user_quota_change (id, period, valid_from, quota) VALUES (%s, %s, %s, %s)",
            [id_, period, since, quota],
        )

    def land(self, *events: Event) -> None:
        """Commit one micro-batch."""
        first, self._batches = len(self.events), self._batches + 1
        self.events += events
        files = []
        for hour in sorted({hour_of(time) for _, time, _ in events}):
            rows = [
                {
                    "timestamp": time,
                    "app": "app",
                    "id": id_,
                    "antenna_id": "north",
                    "bytes": bytes_,
                    "kafka_partition": 0,
                    "kafka_offset": first + number,
                }
                for number, (id_, time, bytes_) in enumerate(events)
                if hour_of(time) == hour
            ]
            path = f"landing/{self._batches}-{uuid4().hex[:12]}/hour={hour:%Y%m%d%H}/part-0.parquet"
            (self.lake / path).parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(rows, LANDED_SCHEMA), self.lake / path)
            bytes_ = sum(row["bytes"] for row in rows)
            files.append(AttemptFile(path, hour, len(rows), bytes_, (self.lake / path).stat().st_size))
        windows: dict[tuple[datetime, str], int] = {}
        for id_, time, bytes_ in events:
            start = EPOCH + (time - EPOCH) // WINDOW * WINDOW
            windows[start, id_] = windows.get((start, id_), 0) + bytes_
        commit_batch(
            self.connection,
            BatchPlan("devices", "id", self._batches, self.now, [OffsetRange(0, first, len(self.events))]),
            BatchContent(
                files=files,
                event_times={0: max(time for _, time, _ in events)},
                first_event_time=min(time for _, time, _ in events),
                live={"bytes_agg_user": [(start, id_, sum_) for (start, id_), sum_ in windows.items()]},
            ),
            Observation(self.now),
            lateness=timedelta(minutes=1),
        )

    def of_hour(self, hour: datetime) -> dict[str, int]:
        """The bytes of each user in an hour, of everything that landed."""
        found: dict[str, int] = {}
        for id_, time, bytes_ in self.events:
            if hour_of(time) == hour:
                found[id_] = found.get(id_, 0) + bytes_
        return found

    def publish(self, hour: datetime, sums: dict[str, int] | None = None) -> None:
        """Publish and certify an hour's users: what landed by now, or other sums, as a restatement has them."""
        connection = self.connection
        make_user_days(connection, [hour])
        with connection.transaction():
            generation = connection.execute(
                "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
                " SELECT hour, generation + 1, %s, rows, bytes FROM ledger.hour WHERE hour = %s RETURNING generation",
                [self._batches, hour],
            ).fetchall()[0][0]
            connection.execute(
                "UPDATE ledger.hour SET generation = %s, closed_at = %s, closed_by = 'watermark' WHERE hour = %s",
                [generation, self.now, hour],
            )
            connection.execute(
                "INSERT INTO ledger.publication_head (asset, hour, generation) VALUES ('bytes_agg_user_1h', %s, %s)"
                " ON CONFLICT (asset, hour) DO UPDATE SET generation = excluded.generation",
                [hour, generation],
            )
            connection.execute("DELETE FROM bytes_agg_user_1h WHERE date = %s", [hour])
            for id_, bytes_ in (self.of_hour(hour) if sums is None else sums).items():
                connection.execute(
                    "INSERT INTO bytes_agg_user_1h VALUES (%s, %s, NULL, %s)", [hour, id_, bytes_]
                )
            connection.execute(
                "INSERT INTO ledger.publication (asset, hour, generation, rows, bytes, run_id)"
                " SELECT 'bytes_agg_user_1h', %s, %s, count(*), coalesce(sum(sum_user_bytes), 0), ''"
                " FROM bytes_agg_user_1h WHERE date = %s",
                [hour, generation, hour],
            )
            self._certificates += 1
            connection.execute(
                "INSERT INTO ledger.certificate"
                " (number, hour, generation, users_version, issued_at, text, previous_sha256, sha256)"
                " VALUES (%s, %s, %s, 1, %s, '', '', '')",
                [self._certificates, hour, generation, self.now],
            )
            connection.execute("UPDATE ledger.certificate_head SET number = %s", [self._certificates])

    def publish_day(self, day: date, sums: dict[str, int], *, generation: int = 1) -> None:
        """Publish and certify a day, as it lies in each user's zone, with the bytes of some users."""
        connection = self.connection
        connection.execute("SELECT ledger.make_user_months(%s)", [[day]])
        connection.execute(
            "INSERT INTO ledger.period_generation"
            " SELECT 'day', %(day)s, %(generation)s, hours.*, '{}', head.number"
            " FROM ledger.day_hours(%(day)s) AS hours, ledger.certificate_head AS head",
            {"day": day, "generation": generation},
        )
        connection.execute(
            "INSERT INTO ledger.period_head VALUES ('day', %s, %s, 1, 1)"
            " ON CONFLICT (period, day) DO UPDATE SET generation = excluded.generation",
            [day, generation],
        )
        connection.execute("DELETE FROM bytes_agg_user_1d WHERE day = %s", [day])
        for id_, bytes_ in sums.items():
            connection.execute(
                "INSERT INTO bytes_agg_user_1d SELECT %(day)s, %(id)s,"
                " ledger.period_start('day', %(day)s, ledger.user_zone(%(id)s, %(day)s)), NULL, %(bytes)s",
                {"day": day, "id": id_, "bytes": bytes_},
            )
        connection.execute("UPDATE ledger.period_certificate_head SET number = number + 1")
        connection.execute(
            "INSERT INTO ledger.period_certificate"
            " SELECT number, 'day', %s, %s, 1, %s, '', '', '' FROM ledger.period_certificate_head",
            [day, generation, self.now],
        )

    def look(self) -> Look:
        """Look as a watch does that goes on, or that begins if its `headroom` is a new one."""
        if not self.headroom.filled:
            fill(self.connection, self.headroom, self.now)
        return look(self.connection, self.engine, str(self.lake), self.headroom, self.now)

    def alerts(self) -> list[tuple]:
        return self.connection.execute(
            "SELECT id, period, percent, figure, used::int, resolved FROM alert ORDER BY id, period, starts, percent"
        ).fetchall()

    def notices(self, after: int = 0) -> list[tuple]:
        """Kind, user, percent and used bytes of each notice."""
        return self.connection.execute(
            "SELECT kind, user_id, (body::json ->> 'percent')::int, (body::json ->> 'used')::int FROM outbox"
            " WHERE number > %s ORDER BY number",
            [after],
        ).fetchall()

    def bodies(self) -> Sequence[dict[str, Any]]:
        return [body for (body,) in self.connection.execute("SELECT body::json FROM outbox ORDER BY number")]
