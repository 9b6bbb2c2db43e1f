"""One example of the state machine of row 19: a topic, a database and a lake of its own, and what is done to them.

What is done is the project's own code; what must come of it is in `state_model.py` and `state_invariants.py`.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
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
from antenna_assets.defs.requested_runs import RANGE_END_TAG, RANGE_START_TAG
from antenna_assets.ledger import failing
from antenna_assets.operations.quarantine import replay
from antenna_assets.operations.quarantine.files import QuarantineError
from antenna_assets.operations.quarantine.message_transform import Transform, load_transform
from antenna_assets.operations.quarantine.messages import Selection
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import load_settings
from antenna_assets.stack.kafka_topic import admin_client, ensure_topic
from antenna_assets.verify.run import verify
from antenna_assets_tests.faults import merging_stream, plain_stream
from antenna_assets_tests.faults.in_process import Faults, Held
from antenna_assets_tests.faults.state_facts import LAKE
from antenna_assets_tests.faults.state_invariants import Invariants
from antenna_assets_tests.faults.state_model import HOUR, TRANSFORM, Draft, Message, Model, User, first_hour
from antenna_assets_tests.local_runs import execute, tick

PARTITIONS = 2
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
IN_PROGRESS = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]

Death = tuple[str, int] | None
"""A commit point and its passage, or None to live."""


class World:
    """Everything that an example needs; `close` removes all of it."""

    def __init__(self, server: str, template: str, kafka: str, folder: Path) -> None:
        from confluent_kafka import Producer

        self._ends = ExitStack()
        patch = pytest.MonkeyPatch()
        self._ends.callback(patch.undo)
        name = f"machine_{uuid4().hex[:12]}"
        home = folder / name
        home.mkdir()
        self._ends.callback(shutil.rmtree, home)
        with connect(server) as connection:
            names = {"copy": sql.Identifier(name), "source": sql.Identifier(template)}
            connection.execute(sql.SQL("CREATE DATABASE {copy} TEMPLATE {source}").format(**names))
        self._ends.callback(_drop, server, name)
        ensure_topic(kafka, name, PARTITIONS)
        self._ends.callback(_delete_topic, kafka, name)
        self.url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        patch.setenv("ANTENNA_HOME", str(home))
        patch.setenv("ANTENNA_POSTGRES_URL", self.url)
        patch.setenv("ANTENNA_KAFKA_BOOTSTRAP", kafka)
        patch.setenv("ANTENNA_TOPIC", name)
        # Late rows are published at once, and a failed run is asked for again at once.
        patch.setenv("ANTENNA_REPUBLISH_WAIT", "0 minutes")
        patch.setattr(failing, "FIRST_WAIT", failing.FIRST_WAIT * 0)
        self.faults = Faults(patch)
        self.merges = 0
        self.settings = load_settings()
        self.lake = Path(self.settings.lake_uri)
        self.instance = self._ends.enter_context(dg.DagsterInstance.ephemeral())
        (home / "mend.py").write_text(TRANSFORM)
        self._mend: Transform = load_transform(home / "mend.py")
        self._connection = self._ends.enter_context(
            psycopg.connect(self.url, autocommit=True, options="-c timezone=UTC")
        )
        self._producer = Producer(
            {"bootstrap.servers": kafka, "enable.idempotence": True, "log_level": 0, "linger.ms": 0}
        )
        self.first = first_hour(datetime.now(UTC))
        self.keys = [f"{self.first + number * HOUR:%Y-%m-%d-%H:%M}" for number in range(6)]
        self.model = Model(users=self._users())
        self.invariants = Invariants(self._connection, self.lake, self.model)

    def close(self) -> None:
        self._ends.close()

    def _users(self) -> dict[int, dict[str, User]]:
        ((version,),) = self._connection.execute("SELECT version FROM ledger.users_version").fetchall()
        users = self._connection.execute("SELECT id, name, email, quota FROM user_metadata").fetchall()
        return {version: {id_: (name, email, quota) for id_, name, email, quota in users}}

    def send(self, drafts: Sequence[Draft]) -> None:
        """Send the messages, each acknowledged, and tell the model where Kafka put them."""
        from confluent_kafka import Message as Sent

        def acknowledged(message: Message) -> Callable[[object, Sent], None]:
            def note(error: object, sent: Sent) -> None:
                assert error is None
                self.model.messages[sent.partition(), sent.offset()] = message

            return note

        for draft in drafts:
            message = draft.message(self.first, datetime.now(UTC))
            self._producer.produce(
                self.settings.topic,
                message.value,
                partition=draft.partition,
                on_delivery=acknowledged(message),
            )
        assert self._producer.flush(20) == 0

    def stream(self, *, batch: int, death: Death = None) -> None:
        """Read to the broker's end, in batches of so many messages, and let the clock close hours."""
        with pytest.MonkeyPatch.context() as patch, self.faults.dying(death):
            patch.setattr(plain_stream, "MESSAGES_PER_BATCH", batch)
            plain_stream.read_everything(self.settings)

    def merge(self, *, death: Death = None) -> None:
        """Merge small files, wherever two or more may become one."""
        with self.faults.dying(death), merging_stream.few_files(2):
            self.merges += merging_stream.merge_everything(self.settings)

    def run(self, keys: Sequence[str], *, death: Death = None, on: dg.DagsterInstance | None = None) -> None:
        """Run the job for an hour, or for the range from the first to the last; it succeeds if it lives."""
        tags = {"dagster/partition": keys[0]}
        if len(keys) > 1:
            tags = {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]}
        job = build_definitions().resolve_job_def("hourly_usage")
        if on is not None:  # In a thread whose fault is not to die.
            assert job.execute_in_process(instance=on, tags=tags, run_config=QUIET).success
            return
        with self.faults.dying(death) as fault:
            result = job.execute_in_process(
                instance=self.instance, tags=tags, run_config=QUIET, raise_on_error=False
            )
            assert result.success or fault.dead, failures(result)
        self._reap()

    def tick(self, *, death: Death = None, run_death: Death = None) -> int:
        """One tick of the sensor and its runs; how many there were."""
        requests: list[dg.RunRequest] = []
        with self.faults.dying(death):
            requests = tick(self.instance)
        for request in requests:
            with self.faults.dying(run_death) as fault:
                result = execute(self.instance, request)
                assert result.success or fault.dead, failures(result)
            self._reap()
        return len(requests)

    def plan(self) -> replay.Plan | None:
        """What a replay with the transformation would do now; None if nothing is in quarantine."""
        if not self._connection.execute("SELECT FROM ledger.head").fetchall():
            return None
        try:
            return replay.plan(
                self._connection,
                self.settings,
                Selection(),
                clock=datetime.now(UTC),
                transform=self._mend,
            )
        except QuarantineError:
            return None

    def execute(self, plan: replay.Plan, *, death: Death = None) -> None:
        with connect(self.url) as connection, self.faults.dying(death):
            replay.execute(connection, self.settings, plan, transform=self._mend)

    def change_user(self, id_: str, user: tuple[str, str, int] | None) -> None:
        """Change, add or, for None, remove a user, in one statement."""
        if user is None:
            statement, values = "DELETE FROM user_metadata WHERE id = %s", (id_,)
        elif id_ in self.model.users[self.model.users_version]:
            statement = "UPDATE user_metadata SET name = %s, email = %s, quota = %s WHERE id = %s"
            values = (*user, id_)
        else:
            statement = "INSERT INTO user_metadata (name, email, quota, id) VALUES (%s, %s, %s, %s)"
            values = (*user, id_)
        self._connection.execute(statement.encode(), values)
        self.model.change_user(id_, user, datetime.now(UTC))

    def hold_stream(self, point: str) -> Held:
        """Another stream, held at the point of its first batch."""
        return Held(self.faults, point, 1, lambda: plain_stream.read_everything(self.settings))

    def hold_run(self, point: str, passage: int, key: str) -> Held:
        """A run on another worker, held at the point."""

        def run() -> None:
            with dg.DagsterInstance.ephemeral() as instance:
                self.run([key], on=instance)

        return Held(self.faults, point, passage, run)

    def plant(self, key: str, *, whole: bool) -> None:
        """Put files that nothing names beside those of an hour: events that were never sent, or half a file."""
        hour = datetime.strptime(key, "%Y-%m-%d-%H:%M").replace(tzinfo=UTC)
        partition = f"year={hour.year}/month={hour.month}/day={hour.day}/hour={hour.hour}"
        folders = [f"landing/1-{uuid4().hex[:12]}/hour={hour:%Y%m%d%H}"]
        folders += [f"{table}/{partition}/g1-{uuid4().hex}" for table in LAKE]
        # Beside a file that counts, too.
        rows = self._connection.execute("SELECT path FROM ledger.file WHERE hour = %s LIMIT 1", [hour])
        folders += [str(Path(path).parent) for (path,) in rows.fetchall()]
        columns = {"timestamp": [hour], "app": ["PLANTED"], "id": ["planted"], "antenna_id": ["planted"]}
        columns |= {"bytes": [10**9], "kafka_partition": [0], "kafka_offset": [10**6]}
        for folder in folders:
            path = self.lake / folder / f"planted-{uuid4().hex}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), path)
            if not whole:
                path.write_bytes(path.read_bytes()[:-20])
            self.invariants.planted.add(path)

    def contiguous(self, keys: Sequence[str]) -> list[str]:
        """The keys up to the first gap."""
        start = self.keys.index(keys[0])
        return [key for key, expected in zip(keys, self.keys[start:], strict=False) if key == expected]

    def what_verify_finds(self) -> list[str]:
        """What `antenna verify` would print: differences, and hours that are not finished."""
        found = verify(
            self._connection, Lake(self.settings.lake_uri), kept_since=self.first - self.settings.horizon
        )
        return [*map(str, found.differences), *map(str, found.pending.items())]

    def _reap(self) -> None:
        """What Dagster's run monitoring does with the runs of a dead worker."""
        for run in self.instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS)):
            self.instance.report_run_failed(run)


def failures(result: dg.ExecuteInProcessResult) -> list[str]:
    """Why a run failed."""
    return [str(event.event_specific_data) for event in result.all_events if event.is_step_failure]


def _drop(server: str, name: str) -> None:
    with connect(server) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _delete_topic(kafka: str, name: str) -> None:
    admin = admin_client(kafka)
    admin.delete_topics([name])[name].result(20)
