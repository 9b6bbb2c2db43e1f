"""The state machine of row 19: what is done to a lakehouse in whatever order, and where it dies.

After each step the eight invariants are checked. What an example consists of is in `state_world.py`.
"""

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from antenna_assets.ledger.commit import NotContiguous
from antenna_assets.ledger.replay import AlreadyReplayed
from antenna_assets.operations.quarantine.replay import Plan
from antenna_assets_tests.faults import publish
from antenna_assets_tests.faults.in_process import Held
from antenna_assets_tests.faults.state_draws import (
    HOLDS,
    KILLS,
    KNOWN,
    MERGE_POINTS,
    REPLAY_POINTS,
    STREAM_POINTS,
    batches,
    deaths,
    drafts,
    publication_deaths,
)
from antenna_assets_tests.faults.state_model import Draft, User
from antenna_assets_tests.faults.state_world import World


class Ledger(RuleBasedStateMachine):
    """One example. What it did is counted in `done`."""

    def __init__(self, world: World, done: Counter) -> None:
        super().__init__()
        self.world = world
        self.done = done
        self.closed: list[str] = []
        self.held: Held | None = None
        self.killed = False

    @initialize(what=drafts)
    def begin(self, what: list[Draft]) -> None:
        self.world.send(what)
        self.world.stream(batch=400)

    @rule(what=drafts)
    def produce(self, what: list[Draft]) -> None:
        self.world.send(what)

    @precondition(lambda self: self.closed)
    @rule(what=drafts, hour=st.integers(0, 9), batch=batches)
    def late(self, what: list[Draft], hour: int, batch: int) -> None:
        """All of them for one closed hour, and read at once."""
        number = self.world.keys.index(self.hour(hour))
        self.world.send([Draft(**{**vars(draft), "hour": number, "kind": "good"}) for draft in what])
        self.world.stream(batch=batch)

    @rule(batch=batches)
    def stream(self, batch: int) -> None:
        self.world.stream(batch=batch)

    @rule(what=drafts, batch=batches, death=deaths(STREAM_POINTS))
    def stream_dies(self, what: list[Draft], batch: int, death: tuple[str, int]) -> None:
        self.world.send(what)
        self.world.stream(batch=batch, death=death)

    @rule(what=drafts, point=st.sampled_from(STREAM_POINTS[1:3]), batch=batches)
    def stream_is_overtaken(self, what: list[Draft], point: str, batch: int) -> None:
        """A stream that stops before its commit, while another one commits what it had read."""
        self.world.send(what)
        stale = self.world.hold_stream(point)
        self.world.stream(batch=batch)
        error = stale.let_go()
        assert isinstance(error, NotContiguous), f"an overtaken stream ended with {error!r}"

    @rule(what=drafts, batch=batches)
    def small_files_are_merged(self, what: list[Draft], batch: int) -> None:
        self.world.send(what)
        self.world.stream(batch=batch)
        self.world.merge()

    @rule(death=deaths(MERGE_POINTS))
    def merging_dies(self, death: tuple[str, int]) -> None:
        self.world.merge(death=death)

    @rule()
    def sensor_and_its_runs(self) -> None:
        self.world.tick()

    @rule(death=deaths(("sensor.before_query", "sensor.before_requests")), run=publication_deaths)
    def sensor_and_its_runs_die(self, death: tuple[str, int], run: tuple[str, int]) -> None:
        self.world.tick(death=death, run_death=run)

    @precondition(lambda self: self.closed)
    @rule(hour=st.integers(0, 9))
    def run_again(self, hour: int) -> None:
        self.world.run([self.hour(hour)])

    @precondition(lambda self: self.closed)
    @rule(hour=st.integers(0, 9), hours=st.integers(2, 4))
    def backfill_of_a_range(self, hour: int, hours: int) -> None:
        self.world.run(self.hours(hour, hours))

    @precondition(lambda self: self.closed)
    @rule(hour=st.integers(0, 9), hours=st.integers(1, 3), death=publication_deaths)
    def publication_dies(self, hour: int, hours: int, death: tuple[str, int]) -> None:
        self.world.run(self.hours(hour, hours), death=death)

    @precondition(lambda self: self.closed and not self.killed)
    @rule(hour=st.integers(0, 9), point=st.sampled_from(KILLS), passage=st.integers(1, 2))
    def publication_is_killed(self, hour: int, point: str, passage: int) -> None:
        """A real SIGKILL in a process of its own; once an example, as it takes a second or two."""
        self.killed = True
        publish.die(self.world.settings, f"{point}:{passage}", publish.publish_hour, self.hour(hour))
        self.done["SIGKILLs"] += 1

    @precondition(lambda self: self.closed and self.held is None)
    @rule(what=drafts, hour=st.integers(0, 9), point=st.sampled_from(HOLDS), passage=st.integers(1, 2))
    def a_publication_waits(self, what: list[Draft], hour: int, point: str, passage: int) -> None:
        """It stops on its way, and late events make it an older generation."""
        self.held = self.world.hold_run(point, passage, self.hour(hour))
        self.late(what, hour, 400)

    @precondition(lambda self: self.held is not None)
    @rule()
    def the_older_generation_commits_late(self) -> None:
        assert self.held is not None
        held, self.held = self.held, None
        error = held.let_go()
        assert error is None, f"a publication that was overtaken ended with {error!r}"
        self.done["older generations that came late"] += 1

    @precondition(lambda self: self.closed and self.held is None)
    @rule(what=drafts, hour=st.integers(0, 9), point=st.sampled_from(HOLDS), passage=st.integers(1, 2))
    def an_older_generation_commits_late(
        self, what: list[Draft], hour: int, point: str, passage: int
    ) -> None:
        """The same with the newer generation published meanwhile, and nothing else between."""
        self.a_publication_waits(what, hour, point, passage)
        self.world.run([self.hour(hour)])
        self.the_older_generation_commits_late()

    @precondition(lambda self: self.closed and self.held is None)
    @rule(
        hour=st.integers(0, 9),
        point=st.sampled_from(HOLDS),
        passage=st.integers(1, 2),
        user=st.tuples(st.just("somebody"), st.just("g@h.i"), st.integers(0, 300_000)),
    )
    def older_users_commit_late(self, hour: int, point: str, passage: int, user: User) -> None:
        """A publication stops on its way, and the hour is published with newer users meanwhile, at the same generation."""
        self.held = self.world.hold_run(point, passage, self.hour(hour))
        self.users_change(KNOWN[0], user)
        self.world.run([self.hour(hour)])
        self.the_older_generation_commits_late()

    @rule(again=st.booleans())
    def replay(self, again: bool) -> None:
        """A replay, and perhaps the same one by somebody else at the same time."""
        plan = self.planned()
        if plan is None:
            return
        other = self.world.plan()
        self.world.execute(plan)
        if again and other is not None:
            with pytest.raises(AlreadyReplayed):
                self.world.execute(other)

    @rule(death=deaths(REPLAY_POINTS))
    def replay_dies(self, death: tuple[str, int]) -> None:
        if (plan := self.planned()) is not None:
            self.world.execute(plan, death=(death[0], 1))

    @rule(
        id_=st.sampled_from([*KNOWN, "a stranger"]),
        user=st.none()
        | st.tuples(st.just("somebody"), st.sampled_from(["a@b.c", "d@e.f"]), st.integers(0, 300_000)),
    )
    def users_change(self, id_: str, user: User | None) -> None:
        self.world.change_user(id_, user)

    @precondition(lambda self: self.closed)
    @rule(hour=st.integers(0, 9), whole=st.booleans())
    def files_are_planted(self, hour: int, whole: bool) -> None:
        """Files that look like the pipeline's own, in landing and in both tables of the lake."""
        self.world.plant(self.hour(hour), whole=whole)

    @invariant()
    def the_eight_invariants_hold(self) -> None:
        found = self.world.invariants.check()
        self.closed = [f"{hour:%Y-%m-%d-%H:%M}" for hour in found.closed()]
        self.done["checks"] += 1

    def teardown(self) -> None:
        try:
            if self.held is not None:
                self.the_older_generation_commits_late()
            self.settle()
        finally:
            if self.held is not None:
                self.held.let_go()
            self.done["deaths"] += self.world.faults.deaths
            self.done["merges"] += self.world.merges
            self.done["messages"] += len(self.world.model.messages)
            self.world.close()

    def settle(self) -> None:
        """After everything, a stream and a few ticks bring each closed hour to its newest generation."""
        self.world.stream(batch=400)
        for _ in range(5):
            if not self.world.tick():
                break
        else:
            raise AssertionError("the sensor still asks for runs after five ticks")
        facts = self.world.invariants.check_files_anew()
        assert facts.consumed().keys() == self.world.model.messages.keys()
        newest = {row.hour: row for row in facts["generations"]}
        for row in facts["hours"]:
            if row.closed_at is not None:
                assert newest[row.hour].rows == row.rows
                heads = [head.generation for head in facts["heads"] if head.hour == row.hour]
                assert heads == [row.generation] * 6, f"{row}: {heads}"
                users = {head.users_version for head in facts["heads"] if head.hour == row.hour} - {None}
                assert len(users) == 1, f"{row}: published with versions {users} of the users"
        known = self.world.model.users[self.world.model.users_version]
        unknown = {row.id for row in facts["bytes_agg_user_1h"] if row.email is None}
        assert not unknown & known.keys(), "hours with users who are known by now were not published again"
        assert self.world.what_verify_finds() == []

    def hour(self, number: int) -> str:
        return self.closed[number % len(self.closed)]

    def hours(self, number: int, count: int) -> list[str]:
        """So many closed hours from this one on, as far as there are."""
        start = number % len(self.closed)
        return self.world.contiguous(self.closed[start : start + count])

    def planned(self) -> Plan | None:
        """A plan of what is to be mended, which must be what the model expects; None if there is nothing."""
        plan = self.world.plan()
        if plan is None:
            return None
        facts = self.world.invariants.check()
        expected = self.world.model.mendable(facts.consumed(), facts.replays())
        columns = (plan.accepted[name].to_pylist() for name in ("kafka_partition", "kafka_offset"))
        assert sorted(zip(*columns, strict=True)) == sorted(expected)
        return plan if expected else None
