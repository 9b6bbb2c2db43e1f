"""Between the features: which pairs can meet, and how each is known to keep its promises."""

from dataclasses import dataclass
from typing import Literal

FEATURES = {
    "publish": "a publication",
    "users": "another users' version",
    "backfill": "a backfill",
    "sensor": "the sensor",
    "late": "late rows",
    "stream": "the stream",
    "replay": "a replay",
    "forget": "forgetting a user",
    "sweep": "a sweep",
    "verify": "`antenna verify`",
    "horizon": "the horizon",
    "topic": "a topic made again, or mirrored",
    "loss": "`antenna accept-loss`",
    "reopen": "`antenna reopen`",
    "rebuild": "a table rebuilt",
    "lake": "a lake lost, moved, or another's",
    "ledger": "a ledger restored, or another's",
    "host clock": "a host with a wrong clock",
    "clock": "PostgreSQL's clock set back or ahead",
    "kill": "a kill",
    "frozen": "a process that stands still",
    "envelope": "any Kafka timestamp, key and header",
    "size": "messages as large as Kafka takes them",
    "sums": "sums beyond 64 bits or 2^53",
    "settings": "settings of a role, a database or the environment",
    "quarantine": "the quarantine's commands",
    "dashboards": "dashboards and report",
    "dagster": "Dagster's storage and UI",
    "upgrade": "an upgrade",
    "periods": "days and months",
    "quotas": "a quota corrected for the past",
    "alerts": "the watch over alerts",
    "store": "a lake in S3",
    "backup": "a restored backup",
}
"""The features by a short name, as the page calls them."""


@dataclass(frozen=True)
class Cell:
    """Two features that can meet. `why` begins with the rows that show it and a colon, or gives the reason."""

    one: str
    other: str
    status: Literal["shown", "argued", "not promised"]
    why: str


CELLS: tuple[Cell, ...] = (
    Cell("publish", "users", "shown", "29, 28, 19: in every order, at one generation and at two"),
    Cell("publish", "kill", "shown", "16, 28: at each point, and a re-publication that dies half-way"),
    Cell("publish", "frozen", "shown", "18, 39: superseded or ended, and the stream goes on within a bound"),
    Cell(
        "publish", "lake", "shown", "30, 35: a table built anew is certified again; another lake is refused"
    ),
    Cell("publish", "topic", "shown", "30: coordinates repeat between two lives of a topic, not within one"),
    Cell("publish", "host clock", "shown", "35: a run of a machine hours ahead publishes"),
    Cell("publish", "horizon", "shown", "30: a certificate issued past the horizon says what had landed"),
    Cell("backfill", "sensor", "shown", "18, 27: hours that run are not asked for, and hide no others"),
    Cell("backfill", "users", "shown", "29: the run that is older is superseded"),
    Cell("backfill", "lake", "shown", "35: a dry run asks whose lake it is"),
    Cell("sensor", "late", "shown", "13, 27: a late hour waits for minutes at most, the newest one never"),
    Cell("sensor", "kill", "shown", "15: around a tick"),
    Cell("sensor", "dagster", "shown", "27, 28: runs deleted, storage restored, a weekend without a daemon"),
    Cell("sensor", "ledger", "shown", "27: keys are random, and none is given twice"),
    Cell(
        "sensor",
        "clock",
        "argued",
        "hours in the future are left out and named; the wait for late rows has a unit test",
    ),
    Cell("sensor", "upgrade", "shown", "27: hours that failed before stay failing"),
    Cell("stream", "late", "shown", "13, 26: an hour that got rows while a week is caught up closes once"),
    Cell("stream", "clock", "shown", "26: never in the future, never back; `antenna reopen` is the repair"),
    Cell(
        "stream", "host clock", "shown", "26, 12: nothing is rejected or closed by it, and the host is named"
    ),
    Cell("stream", "envelope", "shown", "32: accepted whatever its Kafka timestamp"),
    Cell(
        "stream", "size", "shown", "32: bytes bound a batch; what cannot be read is halved down to the record"
    ),
    Cell("stream", "topic", "shown", "6, 33: named; begins where a person says, recorded"),
    Cell(
        "stream",
        "loss",
        "shown",
        "6, 33: contiguous after a record stepped over, and after Kafka lost what was read",
    ),
    Cell(
        "stream",
        "frozen",
        "shown",
        "39: the session that stands still is ended, and the stream says whose it waits for",
    ),
    Cell(
        "stream", "lake", "shown", "35: refused before anything is written, and under the lock of each commit"
    ),
    Cell("stream", "sums", "shown", "31: a full hour takes no more events"),
    Cell("stream", "settings", "shown", "37, 40: pinned, or refused by `antenna up`"),
    Cell("stream", "kill", "shown", "1, 2, 26: at each point, and again every 20 s"),
    Cell("replay", "horizon", "shown", "8, 19: into hours that are whole; an hour in part is left out"),
    Cell("replay", "topic", "shown", "30, 33: a message is known by topic id, partition and offset"),
    Cell("replay", "forget", "shown", "34: one that was planned before writes nothing"),
    Cell(
        "replay",
        "sums",
        "argued",
        "a full hour is left out by the same look-up as in the stream; unit-sized, not run with Spark",
    ),
    Cell("replay", "kill", "shown", "34, 19: what it leaves lies where sweep and search look"),
    Cell("forget", "publish", "shown", "34: a run that had read the user before commits nothing"),
    Cell("forget", "stream", "shown", "34: beside one that runs and merges small files"),
    Cell("forget", "forget", "shown", "34: the second is refused"),
    Cell("forget", "sweep", "shown", "34: nothing that it needs is taken, in hours of work as well"),
    Cell("forget", "late", "shown", "34: rows that come meanwhile are found"),
    Cell("forget", "verify", "shown", "34: clean once it is finished"),
    Cell("forget", "backfill", "argued", "a backfill is a publication: the same gate"),
    Cell("forget", "users", "argued", "it publishes the hour's own generation and users' version again"),
    Cell(
        "forget",
        "horizon",
        "argued",
        "rewritten from the lake's files; what had landed is a fact of the generation",
    ),
    Cell("forget", "kill", "shown", "34: at each point, finished by the next one"),
    Cell(
        "forget",
        "topic",
        "not promised",
        "Kafka keeps its messages until their retention; a stream told to read them again lands them",
    ),
    Cell(
        "verify",
        "kill",
        "not promised",
        "differences are named until a forgetting that was killed is finished",
    ),
    Cell("verify", "ledger", "shown", "38: a chain rewritten by the owner is found by an anchored hash"),
    Cell("verify", "lake", "shown", "35, 36: another lake is refused; a table that was rebuilt is clean"),
    Cell("sweep", "stream", "shown", "35, 10: an attempt that is or will be committed stays"),
    Cell("sweep", "publish", "shown", "35, 10: files of runs and of the newest publications stay"),
    Cell("sweep", "host clock", "shown", "35: ages are PostgreSQL's and the file system's"),
    Cell("sweep", "ledger", "shown", "35: another's is refused; an older copy takes nothing of its future"),
    Cell("sweep", "dagster", "shown", "39: as the administrator, of tables that Dagster makes later as well"),
    Cell(
        "ledger",
        "stream",
        "not promised",
        "a restored copy beside its original on one lake: only the sweep sees it",
    ),
    Cell(
        "horizon", "stream", "shown", "39, 9: one transaction an hour; the head's lock is never held for long"
    ),
    Cell("rebuild", "kill", "shown", "36: done again"),
    Cell("rebuild", "sweep", "shown", "36: nothing of it is taken"),
    Cell("rebuild", "publish", "argued", "each hour is committed behind the same fence as a publication's"),
    Cell(
        "rebuild",
        "horizon",
        "shown",
        "36: an hour whose files are lost and whose landing is gone is named as lost",
    ),
    Cell("reopen", "publish", "shown", "26: what was published stays until the hour is published again"),
    Cell("reopen", "sensor", "argued", "an hour that is open again is no failing one"),
    Cell("lake", "kill", "shown", "35: between the two halves of a claim"),
    Cell("envelope", "quarantine", "shown", "32: listed, shown, exported and replayed in any year"),
    Cell(
        "size",
        "quarantine",
        "argued",
        "a replay holds its whole selection in memory; `--limit` makes it smaller",
    ),
    Cell("sums", "dashboards", "shown", "31: views, report and checks; Superset's charts in `make test-ui`"),
    Cell(
        "settings", "publish", "shown", "37: sessions pin zone, formats, search path, time-outs and isolation"
    ),
    Cell(
        "settings",
        "dagster",
        "shown",
        "37, 38: Dagster's own sessions are pinned; no configured value holds an address",
    ),
    Cell("dagster", "kill", "shown", "16, 28: no run hangs, and every hour is asked for again"),
    Cell("upgrade", "publish", "shown", "28, 29: an older program that runs on is fenced by the same heads"),
    Cell("periods", "replay", "shown", "43: hour, day and month are published again, once each"),
    Cell("periods", "late", "shown", "41, 43: a day that was read before is asked for again"),
    Cell("periods", "rebuild", "shown", "43: over a rebuilt lake table the certificates of days stay"),
    Cell(
        "periods",
        "publish",
        "shown",
        "43: two runs at once have one certificate, the older one changes nothing",
    ),
    Cell("periods", "quotas", "shown", "43: also while a day or a month is published for the first time"),
    Cell("periods", "backfill", "shown", "43: of hours by the quotas of now; days keep their own quotas"),
    Cell("periods", "sensor", "shown", "43: asked for once, whatever ticks in between"),
    Cell("periods", "forget", "shown", "43: runs that had read the user are waited for, or commit nothing"),
    Cell("periods", "verify", "shown", "43: pending from a forgetting until they are published again"),
    Cell("periods", "sweep", "shown", "43: what a day was published from may go"),
    Cell("periods", "horizon", "shown", "43: computed from the lake's tables, and checked against events"),
    Cell("periods", "store", "shown", "43: with windows of users in scratch"),
    Cell("periods", "backup", "shown", "43: as of the dump, and then as the late row has them"),
    Cell("periods", "kill", "shown", "41: at each point"),
    Cell("alerts", "replay", "shown", "43: nothing is raised of the past, what was raised is corrected"),
    Cell("alerts", "backfill", "shown", "43: verdicts of the past raise nothing"),
    Cell("alerts", "forget", "shown", "43: a look that has read the user is waited for"),
    Cell("alerts", "kill", "shown", "42: each alert is raised once"),
    Cell("upgrade", "horizon", "shown", "30: what landed before is kept as its files go"),
)
"""The pairs that can meet, in the order of the data."""
