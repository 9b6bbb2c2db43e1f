"""What has to be shown: the rows, and the parts of at most half an hour in which they run.

A row is shown by the tests whose names begin with `test_row_<number>_`.
"""

ROWS = {
    1: "The stream is killed at each of its commit points: Python, Java, or both. Every message is filed once.",
    2: "The stream is killed at random moments while messages flow. Every message is filed once, and the first commit "
    "after a restart comes within 3 s, with Spark within 30 s (p95).",
    3: "Late, reordered, malformed and unknown-user events against an oracle in plain Python: no row differs.",
    4: "The checkpoint is deleted, the answer to COMMIT is lost, a stalled stream outlives its session: every message is "
    "filed once, and nobody has to do anything.",
    5: "A second stream ends within 10 s with a clear message and an exit code that is not 0.",
    6: "Kafka lost messages or the topic was made again: the stream stops and names the offsets, and `antenna accept-loss` "
    "is the recorded way on. Partitions that were added are picked up.",
    7: "The broker is killed under load: every acknowledged event is there once, and the sender fails if one is not acknowledged.",
    8: "PostgreSQL is killed and stays away: the stream waits, goes on by itself, and its memory stays flat.",
    9: "The disk is full, in the lake or in PostgreSQL: no torn hour can be read, and work goes on once there is space.",
    10: "Orphaned, truncated and doubled files in the lake's folders are never read; the sweeper removes all of them and nothing else.",
    11: "Fuzzed payloads are landed or quarantined, each with its reason; with 10 % poison the stream keeps 80 % of its throughput.",
    12: "Events from 1970, 2038, 2999 and tomorrow drop no good row and close no hour early.",
    13: "Late events for closed hours are counted exactly, and the hour is right again within two ticks of the sensor.",
    14: "After 10,000 micro-batches a commit takes as long and as much memory as at first, and an hour is one file.",
    15: "Dagster's daemon is killed around the sensor's ticks: every closed hour ends published with its newest batch.",
    16: "Everything is killed at once in the middle of a run: two minutes after the restart no run hangs, and the result is exact.",
    17: "Readers poll the hourly tables while hours are replaced and workers killed: none ever sees a part of an hour.",
    18: "Backfills, sensor, stream and paused workers at the same hours: no deadlock, no error, no doubled hour.",
    19: "A random walk through messages, late data, crashes, re-runs, backfills, replays and late commits keeps the eight invariants of the ledger.",
    20: "Fuzzed partition keys: only canonical, closed hours write.",
    21: "Each seeded corruption of published data is found by `antenna verify`, and nothing on clean data.",
    22: "Hostile strings in every text field are stored as they are, and no statement is built from them.",
    23: "Each role may do what docs/roles.md says and nothing else, by attempt; the dashboards' role reads no e-mail.",
    24: "Containers publish ports on 127.0.0.1 only, and a short or well-known secret is refused.",
    25: "Liveness: every message that Kafka can hand out is committed, or named as held, within 60 s of a healthy stack.",
    26: "Liveness: every ended hour closes within `ANTENNA_QUIET` and a minute, once while the stream catches up; no hour in the "
    "future of PostgreSQL's clock closes.",
    27: "Liveness: every closed dirty hour is asked for within two ticks of its wait, whatever becomes of other hours.",
    28: "Liveness: every hour that was asked for is published, superseded or named as failing, and the newest certificate names "
    "the newest publications, all of one users' version.",
    29: "Publications of two users' versions meet in every order: the older one never overwrites the newer.",
    30: "Certificates stay true past the horizon, after a lake table was lost and built anew, and after a topic was made again.",
    31: "Sums beyond 64 bits and beyond 2^53 stop no stream, report or dashboard, and are shown as they are; no quota is no limit.",
    32: "Kafka's timestamps, keys and headers are fuzzed and messages are as large as Kafka takes them: the stream goes on within "
    "its memory, and each verdict takes time linear in the message.",
    33: "Messages that were gone before the first read, read messages that Kafka lost, a mirrored topic: each is named, with a recorded way on.",
    34: "Forgetting meets publications, replays, sweeps, verification and another forgetting: the id is nowhere, and no file is lost.",
    35: "A sweep with another ledger, another clock, or beside a stream and runs removes nothing that is or will be committed.",
    36: "A torn log of a lake table is named, and the table is built anew.",
    37: "Settings of a role, database or environment change no result; what cannot work is refused by `antenna up` in one sentence.",
    38: "Nothing that Dagster stores or shows holds a secret, and what lies on disk is its owner's alone.",
    39: "Frozen runs block the stream for a bounded time, and what the ledger and Dagster keep is bounded.",
    40: "Kubernetes' service variables, another Spark, Hadoop or Java configuration, another locale or user id: everything starts.",
    41: "Days of users in any zone are those of plain Python, to the microsecond; killed at each point, a day is whole after the next run.",
    42: "Whatever happens in whatever order, alerts are those of an oracle in plain Python, each raised once and none from history; watch and "
    "deliverer are killed 200 times each, and every notice that is owed arrives, under one id.",
    43: "Days, months, quotas with a history and alerts meet replays, rebuilt tables, runs at the same time, corrections, backfills, "
    "forgetting, sweeps, a store and a restored backup: no update is lost, and nobody who was forgotten is left.",
}
"""What must hold, by row. The numbers are those that the tests' names carry."""

LIVENESS = (25, 26, 27, 28)
"""The rows that promise that something happens, each within a bound; the others promise that something never does."""

PARTS: dict[str, tuple[int, ...]] = {
    "data": (3, 12, 13, 21, 22, 23, 24),
    "outages": (4, 5, 6, 7, 8, 9, 10),
    "publishing": (15, 16, 17, 18),
    "liveness": (25, 26, 27, 28),
    "between": (29, 30, 31, 33, 34, 35, 36),
    "surroundings": (37, 38, 39, 40),
    "machine": (19, 20),
    "quotas": (41, 42, 43),
    "fuzzing": (32,),
    "kills": (1,),
    "batches": (14,),
    "poison": (11,),
    "soak": (2,),
}
"""The rows that run together, in the order in which they run."""

MEASURING = ("poison", "soak")
"""The parts that hold rates and seconds against a bound: one test at a time."""
