"""The eight invariants of the ledger, checked on what the state machine of row 19 finds against what its model expects.

It shares no code with the pipeline.
"""

from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from antenna_assets_tests.faults.state_facts import HOURLY, LAKE, LIVE, DeltaLog, Facts, Files, event_of
from antenna_assets_tests.faults.state_model import Coordinates, Event, Model


class Invariants:
    """Checks one example's database and lake; it remembers the generations, which must never go down."""

    def __init__(self, connection: psycopg.Connection, lake: Path, model: Model) -> None:
        self._connection = connection
        self._lake = lake
        self._model = model
        self._files = Files()
        self._delta = {name: DeltaLog(lake / name) for name in LAKE}
        self._highest: dict[tuple[str, datetime], tuple[int, int]] = {}
        # Table and Delta version, hour, generation and users' version: a commit has several hours.
        self._lake_commits: set[tuple[str, int, datetime, int, int | None]] = set()
        self.planted: set[Path] = set()

    def check(self) -> Facts:
        """All of them; returns what was found."""
        facts = Facts.read(self._connection)
        consumed = self._1_contiguous(facts)
        landed = self._2_and_3_every_message_in_one_file(facts, consumed)
        contents = self._generations(facts, landed)
        self._4_lake(contents)
        self._4_tables(facts, contents)
        self._6_live(facts, landed, contents)
        self._7_over_quota(facts)
        self._8_orphans(facts)
        return facts

    def check_files_anew(self) -> Facts:
        """All of them, with every file read again and the whole log of Delta."""
        self._files.forget()
        self._delta = {name: DeltaLog(self._lake / name) for name in LAKE}
        for table in LAKE:
            self._highest = {key: value for key, value in self._highest.items() if key[0] != f"delta {table}"}
        return self.check()

    def _1_contiguous(self, facts: Facts) -> dict[Coordinates, int]:
        ends: dict[int, int] = {}
        for of in facts["offsets"]:
            assert of.from_offset == ends.get(of.partition, 0), f"1: a gap or an overlap: {of}"
            ends[of.partition] = of.until_offset
        assert [row.batch for row in facts["batches"]] == list(range(1, len(facts["batches"]) + 1))
        consumed = facts.consumed()
        assert consumed.keys() <= self._model.messages.keys(), "1: offsets beyond what was sent"
        return consumed

    def _2_and_3_every_message_in_one_file(
        self, facts: Facts, consumed: dict[Coordinates, int]
    ) -> dict[Coordinates, int]:
        """The batch that landed each accepted message, a replay's for those that were replayed."""
        messages, replays = self._model.messages, facts.replays()
        expected = {place: batch for place, batch in consumed.items() if messages[place].reason is None}
        refused = {place: batch for place, batch in consumed.items() if messages[place].reason is not None}
        assert replays.keys() <= self._model.mendable(consumed, ()), "2: replayed what nothing mends"
        for row in facts["replayed"]:
            assert row.reason == messages[row.partition, row.kafka_offset].reason
        expected |= replays
        landed: list[tuple[Coordinates, int]] = []
        rejected: list[tuple[Coordinates, int]] = []
        per_batch: defaultdict[int, Counter] = defaultdict(Counter)
        reasons: Counter = Counter()
        per_hour: defaultdict[datetime, Counter] = defaultdict(Counter)
        for file in facts["files"]:
            path = self._lake / file.path
            rows = self._files.rows(path)
            assert (len(rows), path.stat().st_size) == (file.rows, file.size), f"3: {file}"
            batches = self._batches(file, rows, consumed)
            if file.kind == "rejected":
                for row, batch in zip(rows, batches, strict=True):
                    place = (row["kafka_partition"], row["kafka_offset"])
                    rejected.append((place, batch))
                    reasons[batch, row["reason"]] += 1
                    found = (row["value"], row["reason"])
                    assert found == (messages[place].value, messages[place].reason), f"2: {place}: {found}"
                    per_batch[batch]["quarantined"] += 1
                continue
            for row, batch in zip(rows, batches, strict=True):
                place, event = event_of(row)
                assert event == messages[place].event, f"2: {place}: {event}, sent {messages[place].event}"
                assert event.hour == file.hour
                landed.append((place, batch))
                for counts in (per_batch[batch], per_hour[file.hour]):
                    counts["rows"] += 1
                    counts["bytes"] += event.bytes
            assert sum(row["bytes"] for row in rows) == file.bytes, f"3: {file}"
            for sealed in facts["generations"]:
                if sealed.hour == file.hour:
                    beyond = {batch > sealed.up_to_batch for batch in batches}
                    assert len(beyond) == 1, f"4: {file} was merged across {sealed}"
        assert sorted(landed) == sorted(expected.items()), "2: landed rows are not the accepted messages"
        assert sorted(rejected) == sorted(refused.items()), "2: rejected rows are not the malformed messages"
        assert len(landed) + len(rejected) - len(replays) == len(consumed)
        assert {(row.batch, row.reason): row.rows for row in facts["rejections"]} == reasons
        for row in facts["batches"]:
            of = per_batch[row.batch]
            assert (row.rows, row.bytes, row.quarantined) == (of["rows"], of["bytes"], of["quarantined"])
        for row in facts["hours"]:
            assert (row.rows, row.bytes) == (per_hour[row.hour]["rows"], per_hour[row.hour]["bytes"]), row
        assert per_hour.keys() <= {row.hour for row in facts["hours"]}
        return dict(landed)

    @staticmethod
    def _batches(file: Any, rows: list[dict], consumed: dict[Coordinates, int]) -> list[int]:
        """The batch of each row: the file's, or in a merged file the one that read the row."""
        if file.merged is None:
            return [file.batch] * len(rows)
        batches = [consumed[row["kafka_partition"], row["kafka_offset"]] for row in rows]
        assert sorted(set(batches)) == file.merged, f"3: {file} has rows of other batches"
        assert file.batch == file.merged[-1], f"3: {file}"
        return batches

    def _generations(
        self, facts: Facts, landed: dict[Coordinates, int]
    ) -> dict[tuple[datetime, int], dict[Coordinates, Event]]:
        """5, and what each sealed generation holds: its hour's messages of all batches up to its own."""
        contents: dict[tuple[datetime, int], dict[Coordinates, Event]] = {}
        before: dict[datetime, tuple[int, int]] = {}
        for row in facts["generations"]:
            number, up_to = before.get(row.hour, (0, -1))
            assert row.generation == number + 1, f"5: {row}"
            assert row.up_to_batch > up_to, f"5: {row} holds no more than the one before"
            before[row.hour] = (row.generation, row.up_to_batch)
            events = {place: self._model.event(place) for place, b in landed.items() if b <= row.up_to_batch}
            content = {place: event for place, event in events.items() if event.hour == row.hour}
            sums = (len(content), sum(event.bytes for event in content.values()))
            assert (row.rows, row.bytes) == sums, f"4: {row}"
            contents[row.hour, row.generation] = content
        newest = {hour: generation for hour, (generation, _) in before.items()}
        for row in facts["hours"]:
            assert row.generation == newest.get(row.hour, 0), f"5: {row}"
            assert row.closed_at is not None or row.generation == 0, f"an open hour was sealed: {row}"
            self._never_down("ledger", row.hour, row.generation)
        for row in facts["heads"]:
            self._never_down(row.asset, row.hour, row.generation, row.users_version or 0)
        last: dict[tuple[str, datetime], int] = {}
        for row in facts["publications"]:
            assert row.generation >= last.get((row.asset, row.hour), 0), f"5: {row}"
            last[row.asset, row.hour] = row.generation
            if row.asset in LAKE:
                content = contents[row.hour, row.generation]
                assert row.rows == len(content), f"4: {row}"
        assert last == {(row.asset, row.hour): row.generation for row in facts["heads"]}
        return contents

    def _never_down(self, what: str, hour: datetime, generation: int, users_version: int = 0) -> None:
        """Neither the generation nor, within one, the version of the users."""
        highest, now = self._highest.get((what, hour), (0, 0)), (generation, users_version)
        assert now >= highest, f"5: {what} of {hour} went from {highest} to {now}"
        self._highest[what, hour] = now

    def _4_lake(self, contents: dict[tuple[datetime, int], dict[Coordinates, Event]]) -> None:
        for table, log in self._delta.items():
            for commit in log.new_commits():
                self._never_down(f"delta {table}", commit.hour, commit.generation, commit.users_version or 0)
                content = contents[commit.hour, commit.generation]
                rows = [row for path in commit.files for row in self._files.rows(path)]
                found = dict(map(event_of, rows))
                assert len(rows) == len(found), f"4: doubled rows in {table} at {commit}"
                assert found == content, f"4: {table} at {commit}"
                if table == "enriched_usage":
                    assert commit.users_version is not None
                    users = {
                        event_of(row)[0]: (event_of(row)[1], row["name"], row["email"], row["quota"])
                        for row in rows
                    }
                    assert users == self._model.enriched(content, commit.users_version), f"4: {commit}"
                self._lake_commits.add(
                    (table, commit.version, commit.hour, commit.generation, commit.users_version)
                )

    def _4_tables(self, facts: Facts, contents: dict[tuple[datetime, int], dict[Coordinates, Event]]) -> None:
        for row in facts["publications"]:
            if row.asset in LAKE:
                commit = (row.asset, row.lake_version, row.hour, row.generation, row.users_version)
                assert commit in self._lake_commits, f"4: {row}"
        published = {(row.asset, row.hour): row for row in facts["publications"] if row.asset in HOURLY}
        for table in HOURLY:
            for hour in {row.date for row in facts[table]} | {h for asset, h in published if asset == table}:
                assert (table, hour) in published, f"8: {table} has rows of {hour}, which was not published"
                row = published[table, hour]
                events = contents[hour, row.generation].values()
                found, expected = (
                    facts.of_hour(table, hour),
                    self._model.table(table, hour, events, row.users_version),
                )
                assert len(found) == len(expected), f"4: {row}"
                assert set(found) == expected, f"4: {row}"

    def _6_live(
        self,
        facts: Facts,
        landed: dict[Coordinates, int],
        contents: dict[tuple[datetime, int], dict[Coordinates, Event]],
    ) -> None:
        events = [self._model.event(place) for place in landed]
        live = self._model.live(events)
        for table in LIVE:
            assert sorted(map(tuple, facts[table])) == sorted(live.get(table, ())), f"6: {table}"
        for head in facts["heads"]:
            if f"{head.asset}".removesuffix("_1h") not in LIVE or not head.asset.endswith("_1h"):
                continue
            whole = sum(event.hour == head.hour for event in events)
            if len(contents[head.hour, head.generation]) == whole:
                sums: Counter = Counter()
                for date, key, sum_ in facts[head.asset.removesuffix("_1h")]:
                    if date.replace(minute=0) == head.hour:
                        sums[key] = sums[key] + sum_
                hourly = {row[0]: row[-1] for row in facts.of_hour(head.asset, head.hour)}
                assert dict(sums) == hourly, f"6: {head}"

    def _7_over_quota(self, facts: Facts) -> None:
        newest = {(row.asset, row.hour): row for row in facts["publications"]}
        for (asset, hour), row in newest.items():
            users = newest.get(("bytes_agg_user_1h", hour))
            if asset != "users_over_quota_1h" or users is None:
                continue
            if (row.generation, row.users_version) == (users.generation, users.users_version):
                usage = {key: sum_ for key, _, sum_ in facts.of_hour("bytes_agg_user_1h", hour)}
                found = facts.of_hour("users_over_quota_1h", hour)
                assert sorted(found) == sorted(self._model.over_quota(usage, hour, row.users_version)), (
                    f"7: {row}"
                )

    def _8_orphans(self, facts: Facts) -> None:
        named = {self._lake / file.path for file in facts["files"]}
        for log in self._delta.values():
            named |= log.files
        assert not named & self.planted, "8: a planted file is named"
