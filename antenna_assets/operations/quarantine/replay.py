"""Replays: selected messages, transformed if need be, are validated again by the stream's rules, landed and
committed.

Validating and landing are in `reparse.py`, the transaction in `ledger/replay.py`. A message that is rejected
again stays as it is: no file and no row is written of it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.landing import landing_hour
from antenna_assets.domain.schema import LIVE_TABLES
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.full_hours import full_hours
from antenna_assets.ledger.head import read_head
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.ledger.live_tables import live_tables_left_out
from antenna_assets.ledger.replay import ReplayedMessage, commit_replay, hours_in_part
from antenna_assets.operations.quarantine.files import QuarantineError
from antenna_assets.operations.quarantine.message_transform import Transform, TransformError
from antenna_assets.operations.quarantine.messages import Selection, select
from antenna_assets.operations.quarantine.reparse import land, validate
from antenna_assets.settings import Settings
from antenna_assets.storage.attempt import Attempt, require_writable
from antenna_assets.storage.files import remove_tree
from antenna_assets.storage.paths import lake_path

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
class Skipped:
    """A message that stays in quarantine; `reason` is one of the stream's, or one that only a replay has."""

    partition: int
    offset: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Plan:
    """What a replay would do at `clock`.

    Attributes:
        accepted: the transformed messages that would land, with the columns of `MESSAGES`.
        events: the same as events, row by row, with the columns of `VALIDATED`.
    """

    clock: datetime
    accepted: pa.Table
    events: pa.Table
    hours: Sequence[HourOfReplay]
    skipped: Sequence[Skipped]

    @property
    def skipped_by_reason(self) -> dict[str, int]:
        """Messages that stay in quarantine, by reason, most first."""
        return dict(Counter(one.reason for one in self.skipped).most_common())


def plan(
    connection: psycopg.Connection,
    settings: Settings,
    selection: Selection,
    *,
    clock: datetime,
    transform: Transform | None = None,
) -> Plan:
    """Validate the selected messages again, without changing anything. An event older than the horizon is
    accepted.

    Raises:
        QuarantineError: nothing is selected.
    """
    selected = select(connection, settings.lake_uri, selection)
    if not selected.num_rows:
        raise QuarantineError(
            "no message in quarantine is selected: replayed messages have left it; "
            "`antenna quarantine list` shows the rest"
        )
    messages, skipped = _transformed(selected, transform)
    validated = validate(settings, messages, clock)
    names = pc.unique(validated["hour"]).to_pylist()
    hours = {name: landing_hour(name) for name in names if name is not None}
    refused = _refused_hours(connection, hours)
    keep, added = [], dict.fromkeys(sorted(hours.keys() - refused.keys()), (0, 0))
    for row in validated.to_pylist():
        name = row["hour"]
        accepted = name is not None and name not in refused
        keep.append(accepted)
        if accepted:
            added[name] = (added[name][0] + 1, added[name][1] + row["bytes"])
        else:
            why = (row["reason"], row["detail"] or "") if row["reason"] is not None else refused[name]
            skipped.append(Skipped(row["kafka_partition"], row["kafka_offset"], *why))
    closed = _closed(connection, hours.values())
    mask = pa.array(keep, pa.bool_())
    return Plan(
        clock=clock,
        accepted=messages.filter(mask),
        events=validated.filter(mask),
        hours=[HourOfReplay(hours[name], *sums, hours[name] in closed) for name, sums in added.items()],
        skipped=sorted(skipped, key=lambda one: (one.partition, one.offset)),
    )


def execute(
    connection: psycopg.Connection, settings: Settings, planned: Plan, *, transform: Transform | None = None
) -> int:
    """Land and commit the accepted messages of a plan; returns the batch's number.

    Safe to interrupt at any point: at most files are left that nothing refers to. The stream may run
        meanwhile.

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
        # As the stream does, whatever this shell's settings say.
        left_out = live_tables_left_out(connection)
        live = {
            name: settings.live_windows.get(name, settings.window)
            for name in LIVE_TABLES
            if name not in left_out
        }
        landed = land(settings, planned.events, live, folder=attempt.folder)
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
        # Refused, so nothing is committed for sure; what was landed may name a user who was forgotten.
        lake = lake_path(settings.lake_uri)
        remove_tree(lake / attempt.folder, within=lake)
        raise


def _transformed(selected: pa.Table, transform: Transform | None) -> tuple[pa.Table, list[Skipped]]:
    """The transformed messages, and those that the transformation left or failed on."""
    if transform is None:
        return selected, []
    keep, values, skipped = [], [], []
    for partition, offset, value in zip(
        *(selected[name].to_pylist() for name in ("kafka_partition", "kafka_offset", "value")), strict=True
    ):
        try:
            transformed = transform(value)
        except TransformError as error:
            transformed = None
            skipped.append(Skipped(partition, offset, FAILED, str(error)))
        else:
            if transformed is None:
                skipped.append(Skipped(partition, offset, LEFT, ""))
        keep.append(transformed is not None)
        if transformed is not None:
            values.append(transformed)
    kept = selected.filter(pa.array(keep, pa.bool_()))
    place = kept.schema.get_field_index("value")
    return kept.set_column(place, kept.schema.field(place), pa.array(values, pa.binary())), skipped


def _refused_hours(connection: psycopg.Connection, hours: dict[str, datetime]) -> dict[str, tuple[str, str]]:
    """Reason and detail of the hours that take no events, by the name of their landing folder."""
    in_part, full = set(hours_in_part(connection, hours.values())), set(full_hours(connection))
    refused = {}
    for name, hour in hours.items():
        if hour in in_part:
            refused[name] = (IN_PART, f"retention has removed landed files of {hour_key(hour)}")
        elif hour in full:
            refused[name] = (FULL, f"{hour_key(hour)} holds 2^62 bytes already and takes no more")
    return refused


def _closed(connection: psycopg.Connection, hours: Iterable[datetime]) -> set[datetime]:
    rows = connection.execute(
        "SELECT hour FROM ledger.hour WHERE hour = ANY(%s) AND closed_at IS NOT NULL", [list(hours)]
    ).fetchall()
    return {hour for (hour,) in rows}
