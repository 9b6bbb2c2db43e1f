"""The outbox under random use: written, rolled back, sent, refused, killed at each point, retried, forgotten, with channels
that come and go. Whatever happens, each notice reaches each channel that it is owed to, under its own id, and no other.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from antenna_assets.clients.postgres import connect
from antenna_assets.ledger.outbox import Level
from antenna_assets.operations.alerts.channels import Channel, LogChannel
from antenna_assets.operations.alerts.deliveries import record, record_channels, take
from antenna_assets.operations.alerts.outcome import Outcome
from antenna_assets.operations.alerts.review import retry
from antenna_assets.operations.forget.tables import remove_notices
from antenna_assets_tests.notices import write

pytestmark = pytest.mark.services

NAMES = ("one", "two", "three")
OUTCOMES = {
    "delivered": Outcome(True, 204),
    "failed": Outcome(False, 500, "answered 500"),
    "final": Outcome(False, 410, "answered 410", final=True),
    "pause": Outcome(False, 429, "answered 429", pause=timedelta(minutes=10)),
}


class Killed(Exception):
    """The deliverer dies: PostgreSQL rolls its transaction back, as at the end of any session."""


class Outbox(RuleBasedStateMachine):
    """The model is what is owed: of each channel in use, the notices that it selects and does not have yet."""

    url: ClassVar[str]

    @initialize()
    def begin(self) -> None:
        self.connection = connect(self.url)
        self.connection.execute("DELETE FROM outbox")
        self.connection.execute("DELETE FROM alert_channel")
        self.number = 0
        self.channels: dict[str, Channel] = {}
        self.owed: dict[str, set[str]] = {name: set() for name in NAMES}
        self.dead: dict[str, set[str]] = {name: set() for name in NAMES}
        self.received: dict[str, list[str]] = {name: [] for name in NAMES}
        self.entitled: dict[str, set[str]] = {name: set() for name in NAMES}
        self.user: dict[str, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()

    @rule(
        levels=st.dictionaries(
            st.sampled_from(NAMES), st.sampled_from([None, ("critical",), ("info", "warning")]), max_size=3
        )
    )
    def start_with(self, levels: dict[str, tuple[Level, ...] | None]) -> None:
        self.started_with(
            {name: LogChannel(kind="log", levels=selected) for name, selected in levels.items()}
        )

    @precondition(lambda self: self.channels)
    @rule(data=st.data())
    def start_without_one(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.channels)))
        self.started_with({name: one for name, one in self.channels.items() if name != gone})

    def started_with(self, channels: dict[str, Channel]) -> None:
        record_channels(self.connection, channels)
        for name in self.channels.keys() - channels.keys():
            self.dead[name] |= self.owed[name]
            self.owed[name] = set()
        self.channels = channels

    @rule(
        level=st.sampled_from(["info", "warning", "critical"]),
        user=st.sampled_from(["anna", "ben", None]),
        count=st.integers(1, 3),
        committed=st.booleans(),
    )
    def written(self, level: Level, user: str | None, count: int, committed: bool) -> None:
        ids = [f"n{self.number + one}" for one in range(count)]
        self.number += count
        with self.connection.transaction(force_rollback=not committed):
            write(self.connection, *ids, level=level, user=user)
        if not committed:
            return
        for name, channel in self.channels.items():
            if channel.levels is None or level in channel.levels:
                self.owed[name] |= set(ids)
                self.entitled[name] |= set(ids)
        if user is not None:
            self.user.update(dict.fromkeys(ids, user))

    @precondition(lambda self: self.channels)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(sorted(OUTCOMES)),
        dies=st.sampled_from(["before", "after", None, None]),
    )
    def attempt(self, data: st.DataObject, outcome: str, dies: str | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.channels)))
        with suppress(Killed), self.connection.transaction():
            due = take(self.connection, name)
            if due is None:
                return
            if dies == "before":
                raise Killed
            result = OUTCOMES[outcome]
            if result.delivered:
                self.received[name].append(due.notice.id)
            if dies == "after":
                raise Killed
            record(self.connection, name, due, result)
            if result.delivered or result.final:
                self.owed[name].discard(due.notice.id)
            if result.final:
                self.dead[name].add(due.notice.id)

    @rule()
    def time_passes(self) -> None:
        self.connection.execute("UPDATE delivery SET next_attempt = now() WHERE state = 'waiting'")
        self.connection.execute("UPDATE alert_channel SET paused_until = NULL")

    @rule()
    def retried(self) -> None:
        retry(self.connection)
        for name in self.channels:
            self.owed[name] |= self.dead[name]
            self.dead[name] = set()

    @rule(user=st.sampled_from(["anna", "ben"]))
    def forgotten(self, user: str) -> None:
        remove_notices(self.connection, user)
        gone = {id for id, whose in self.user.items() if whose == user}
        for name in NAMES:
            self.owed[name] -= gone
            self.dead[name] -= gone

    @invariant()
    def what_waits_and_what_is_dead_is_what_is_owed(self) -> None:
        if not hasattr(self, "connection"):
            return
        assert self.found("waiting") == self.owed
        assert self.found("dead") == self.dead

    @invariant()
    def nobody_has_what_was_not_owed(self) -> None:
        for name, ids in getattr(self, "received", {}).items():
            assert set(ids) <= self.entitled[name]

    @rule()
    def everything_is_sent_in_the_end(self) -> None:
        self.time_passes()
        for name in self.channels:
            expected = set(self.owed[name])
            while (due := self.sent(name)) is not None:
                self.received[name].append(due)
            assert expected <= set(self.received[name])
            self.owed[name] = set()

    def sent(self, name: str) -> str | None:
        with self.connection.transaction():
            due = take(self.connection, name)
            if due is None:
                return None
            record(self.connection, name, due, OUTCOMES["delivered"])
            return due.notice.id

    def found(self, state: str) -> dict[str, set[str]]:
        rows: list[tuple[str, str]] = self.connection.execute(
            "SELECT channel, id FROM delivery JOIN outbox ON number = outbox WHERE state = %s", [state]
        ).fetchall()
        return {name: {id for channel, id in rows if channel == name} for name in NAMES}


def test_row_42_each_notice_reaches_each_channel_that_it_is_owed_to_and_no_other(
    new_database: Callable[[str], AbstractContextManager[str]], migrated_template: str, proving: bool
) -> None:
    with new_database(migrated_template) as url:
        machine = type("OutboxOfThisTest", (Outbox,), {"url": url})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=1000 if proving else 60,
                stateful_step_count=40,
                suppress_health_check=list(HealthCheck),
            ),
        )
