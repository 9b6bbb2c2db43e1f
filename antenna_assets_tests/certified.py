"""A small certified lakehouse for the tests of certificates: files landed by hand, published by the real job.

Copies of it are made from a template database and a folder, so that each test may ruin its own.
"""

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import dagster as dg
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.domain.closing_rule import NO_BACKLOG
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.domain.schema import LANDED_SCHEMA, REJECTED_SCHEMA
from antenna_assets.ledger.batch import AttemptFile, BatchContent, BatchPlan
from antenna_assets.ledger.commit import Observation, commit_batch
from antenna_assets.ledger.head import claim_topic
from antenna_assets.ledger.offsets import OffsetRange

FIRST = hour_of(datetime.now(UTC)) - 6 * HOUR
HOURS = [FIRST, FIRST + HOUR, FIRST + 2 * HOUR]
"""Two hours with events and a quiet one."""

KNOWN = [f"00000000-0000-0000-0000-{number:012}" for number in range(1, 8)]
USERS = [*KNOWN, "a stranger", "no\u00ebl '\\ \u0001"]


@dataclass(frozen=True)
class World:
    """A database and a lake that belong together."""

    url: str
    lake: Path

    @contextmanager
    def copy(self, folder: Path) -> Iterator["World"]:
        """Another such world, for as long as the block lasts."""
        parts = urlsplit(self.url)
        name = f"copy_{uuid4().hex[:12]}"
        names = {"copy": sql.Identifier(name), "source": sql.Identifier(parts.path.removeprefix("/"))}
        server = urlunsplit(parts._replace(path="/postgres"))
        with connect(server) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {copy} TEMPLATE {source}").format(**names))
        try:
            shutil.copytree(self.lake, folder / "lake")
            yield World(urlunsplit(parts._replace(path=f"/{name}")), folder / "lake")
        finally:
            with connect(server) as connection:
                connection.execute(sql.SQL("DROP DATABASE {copy} WITH (FORCE)").format(**names))


class Land:
    """Lands batches in one partition, whose offsets it counts."""

    def __init__(self, connection: psycopg.Connection, lake: Path, seed: int) -> None:
        self.connection = connection
        self.lake = lake
        self.random = random.Random(seed)
        self.batch = 0
        self.offset = 0
        self.topic_id = "id"
        claim_topic(connection, "devices", "id")

    @classmethod
    def on(cls, connection: psycopg.Connection, lake: Path) -> "Land":
        """One that goes on where the ledger ends."""
        land = cls(connection, lake, seed=5)
        (land.batch,) = connection.execute("SELECT batch FROM ledger.head").fetchall()[0]
        (land.offset,) = connection.execute("SELECT max(until_offset) FROM ledger.batch_offset").fetchall()[0]
        return land

    def __call__(
        self,
        rows: Mapping[datetime, int],
        *,
        rejected: Sequence[str] = (),
        newest: datetime | None = None,
    ) -> None:
        """Commit a batch of so many random events in each hour and of messages rejected for these reasons."""
        self.batch += 1
        begin = self.offset
        folder = f"landing/{self.batch}-{uuid4().hex[:12]}"
        files = [self._landed(f"{folder}/hour={hour:%Y%m%d%H}", hour, count) for hour, count in rows.items()]
        if rejected:
            files.append(self._rejected(f"{folder}/rejected", rejected))
        event_time = newest or max(rows)
        landed = BatchContent(
            files=files,
            rejections={reason: rejected.count(reason) for reason in set(rejected)},
            event_times={0: event_time},
            first_event_time=min(rows, default=event_time),
        )
        commit_batch(
            self.connection,
            BatchPlan(
                "devices", self.topic_id, self.batch, datetime.now(UTC), [OffsetRange(0, begin, self.offset)]
            ),
            landed,
            Observation(datetime.now(UTC), dict.fromkeys([0], NO_BACKLOG)),
            lateness=timedelta(minutes=1),
        )

    def _next_offset(self) -> int:
        self.offset += 1
        return self.offset - 1

    def _landed(self, folder: str, hour: datetime, count: int) -> AttemptFile:
        rows = [
            {
                "timestamp": hour + timedelta(seconds=self.random.randrange(3600)),
                "app": self.random.choice(["SKYPE", "FACEBOOK", "caf\u00e9"]),
                "id": self.random.choice(USERS),
                "antenna_id": self.random.choice(["north", "south"]),
                "bytes": self.random.randrange(1, 20_000),
                "kafka_partition": 0,
                "kafka_offset": self._next_offset(),
            }
            for _ in range(count)
        ]
        return self._write(
            folder, pa.Table.from_pylist(rows, LANDED_SCHEMA), hour, sum(r["bytes"] for r in rows)
        )

    def _rejected(self, folder: str, reasons: Sequence[str]) -> AttemptFile:
        rows = [
            {
                "value": b"{",
                "reason": reason,
                "detail": None,
                "kafka_partition": 0,
                "kafka_offset": self._next_offset(),
                "kafka_timestamp": FIRST,
            }
            for reason in reasons
        ]
        return self._write(folder, pa.Table.from_pylist(rows, REJECTED_SCHEMA), None, len(rows))

    def _write(self, folder: str, table: pa.Table, hour: datetime | None, bytes_: int) -> AttemptFile:
        path = self.lake / folder / "part-0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(table, path)
        return AttemptFile(f"{folder}/part-0.parquet", hour, table.num_rows, bytes_, path.stat().st_size)


def publish(
    world: World,
    hours: Sequence[datetime],
    *,
    on: dg.DagsterInstance | None = None,
    log_level: str = "ERROR",
) -> None:
    """Run the real job over a range of hours, in this process, on this instance or on one in memory."""
    tags = {
        "dagster/asset_partition_range_start": hour_key(hours[0]),
        "dagster/asset_partition_range_end": hour_key(hours[-1]),
    }
    with (
        pytest.MonkeyPatch.context() as environment,
        nullcontext(on) if on else dg.DagsterInstance.ephemeral() as instance,
    ):
        environment.setenv("ANTENNA_POSTGRES_URL", world.url)
        environment.setenv("ANTENNA_LAKE", str(world.lake))
        job = build_definitions().resolve_job_def("hourly_usage")
        config = {"loggers": {"console": {"config": {"log_level": log_level}}}}
        assert job.execute_in_process(instance=instance, tags=tags, run_config=config).success


def land_and_publish(world: World) -> None:
    """Two hours of events with rejected, late and unknown users' ones, and a quiet hour, all published."""
    with connect(world.url) as connection:
        land = Land(connection, world.lake, seed=4)
        land({FIRST: 60}, rejected=["not_json", "not_json", "blank"])
        land({FIRST: 40, FIRST + HOUR: 30})
        land({FIRST + HOUR: 50}, rejected=["missing_field"], newest=FIRST + 3 * HOUR + timedelta(minutes=9))
        land({FIRST: 5, FIRST + 3 * HOUR: 3}, newest=FIRST + 3 * HOUR + timedelta(minutes=10))
    publish(world, HOURS)
