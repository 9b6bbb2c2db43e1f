"""A replay: selected messages are mended if need be, parsed again by the stream's rules, landed and committed.

Parsing and landing them is `reparse.py`'s matter, the transaction `ledger/replay.py`'s. A message that is
rejected again stays as it is: no file and no row is written of it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.landing import landing_hour
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.full_hours import full_hours
from antenna_assets.ledger.head import read_head
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.ledger.replay import ReplayedMessage, commit_replay, hours_in_part
from antenna_assets.operations.quarantine.files import QuarantineError
from antenna_assets.operations.quarantine.message_transform import Transform, TransformError
from antenna_assets.operations.quarantine.messages import Selection, select
from antenna_assets.operations.quarantine.reparse import land_messages, verdicts_on
from antenna_assets.settings import Settings
from antenna_assets.storage.attempt import Attempt, require_writable
from antenna_assets.storage.files import remove_tree
from antenna_assets.storage.paths import lake_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LEFT = "left by the transformation"
FAILED = "the transformation failed"
IN_PART = "its hour is no longer whole"
FULL = "its hour is full"


@dataclass(frozen=True)
class HourOfReplay:
    """What a replay adds to an hour. A closed one is published again, as its next generation."""

    hour: datetime
    rows: int
    bytes: int
    closed: bool


@dataclass(frozen=True)
class Staying:
    """A message that stays in quarantine, and why: a reason of the stream's, or what is special to a replay."""

    partition: int
    offset: int
    why: str
    detail: str


@dataclass(frozen=True)
class Plan:
    """What a replay would do at `clock`. `accepted` has the mended messages with the columns of `MESSAGES`."""

    clock: datetime
    accepted: pa.Table
    hours: Sequence[HourOfReplay]
    staying: Sequence[Staying]

    @property
    def staying_by_reason(self) -> dict[str, int]:
        """Messages that stay, by why, most first."""
        return dict(Counter(one.why for one in self.staying).most_common())


def plan(
    connection: psycopg.Connection,
    settings: Settings,
    spark: "SparkSession",
    selection: Selection,
    *,
    clock: datetime,
    transform: Transform | None = None,
) -> Plan:
    """Parse the selected messages again, and write nothing. An event older than the horizon is accepted.

    Raises:
        QuarantineError: nothing is selected.
    """
    selected = select(connection, settings.lake_uri, selection)
    if not selected.num_rows:
        raise QuarantineError(
            "no message in quarantine is selected: what was replayed has left it; `antenna quarantine list` shows the rest"
        )
    mended, staying = _mended(selected, transform)
    verdicts = verdicts_on(settings, spark, mended, clock)
    hours = {name: landing_hour(name) for name in pc.unique(verdicts["hour"]).to_pylist() if name is not None}
    gone = set(hours_in_part(connection, hours.values()))
    full = set(full_hours(connection))
    closed_to = {
        **{name: FULL for name, hour in hours.items() if hour in full},
        **{name: IN_PART for name, hour in hours.items() if hour in gone},
    }
    keep, added = [], dict.fromkeys(sorted(hours.keys() - closed_to.keys()), (0, 0))
    for row in verdicts.to_pylist():
        name = row["hour"]
        accepted = name is not None and name not in closed_to
        keep.append(accepted)
        if accepted:
            added[name] = (added[name][0] + 1, added[name][1] + row["bytes"])
            continue
        why, detail = row["reason"], row["detail"] or ""
        if why is None:
            why = closed_to[name]
            detail = {
                IN_PART: f"retention has removed landed files of {hour_key(hours[name])}",
                FULL: f"{hour_key(hours[name])} holds 2^62 bytes already and takes no more",
            }[why]
        staying.append(Staying(row["kafka_partition"], row["kafka_offset"], why, detail))
    closed = _closed(connection, hours.values())
    return Plan(
        clock=clock,
        accepted=mended.filter(pa.array(keep, pa.bool_())),
        hours=[HourOfReplay(hours[name], *sums, hours[name] in closed) for name, sums in added.items()],
        staying=sorted(staying, key=lambda one: (one.partition, one.offset)),
    )


def carry_out(
    connection: psycopg.Connection,
    settings: Settings,
    spark: "SparkSession",
    planned: Plan,
    *,
    transform: Transform | None = None,
) -> int:
    """Land and commit the accepted messages of a plan; returns the batch's number.

    Dying anywhere in between leaves at most files that nothing refers to. The stream may run meanwhile.

    Raises:
        QuarantineError: nothing was accepted.
        WrongLake: this is not the ledger's lake.
        AlreadyReplayed, HourInPart: another replay or retention was faster; nothing was written.
        ForgottenMeanwhile: a user was forgotten since the messages were selected; nothing was written.
    """
    if not planned.accepted.num_rows:
        raise QuarantineError(
            "none of the selected messages would be accepted, so there is nothing to replay"
        )
    require_own_lake(connection, settings.lake_uri)
    require_writable(settings.lake_uri)
    head = read_head(connection, settings.topic)
    with Attempt(settings.lake_uri, head.batch + 1) as attempt:
        landed = land_messages(settings, spark, planned.accepted, folder=attempt.folder, clock=planned.clock)
    columns = ("topic_id", "kafka_partition", "kafka_offset", "reason")
    try:
        return commit_replay(
            connection,
            topic=settings.topic,
            clock=planned.clock,
            messages=[
                ReplayedMessage(*key)
                for key in zip(*(planned.accepted[name].to_pylist() for name in columns), strict=True)
            ],
            content=landed,
            transform=transform.text if transform else None,
        )
    except LedgerError:
        # Refused, so that nothing is committed for sure; what was landed may name a user who was forgotten.
        lake = lake_path(settings.lake_uri)
        remove_tree(lake / attempt.folder, within=lake)
        raise


def _mended(selected: pa.Table, transform: Transform | None) -> tuple[pa.Table, list[Staying]]:
    """The messages that went through the transformation, and those that it left."""
    if transform is None:
        return selected, []
    keep, values, staying = [], [], []
    for partition, offset, value in zip(
        *(selected[name].to_pylist() for name in ("kafka_partition", "kafka_offset", "value")), strict=True
    ):
        try:
            mended = transform(value)
        except TransformError as error:
            mended = None
            staying.append(Staying(partition, offset, FAILED, str(error)))
        else:
            if mended is None:
                staying.append(Staying(partition, offset, LEFT, ""))
        keep.append(mended is not None)
        if mended is not None:
            values.append(mended)
    kept = selected.filter(pa.array(keep, pa.bool_()))
    place = kept.schema.get_field_index("value")
    return kept.set_column(place, kept.schema.field(place), pa.array(values, pa.binary())), staying


def _closed(connection: psycopg.Connection, hours: Iterable[datetime]) -> set[datetime]:
    rows = connection.execute(
        "SELECT hour FROM ledger.hour WHERE hour = ANY(%s) AND closed_at IS NOT NULL", [list(hours)]
    ).fetchall()
    return {hour for (hour,) in rows}
