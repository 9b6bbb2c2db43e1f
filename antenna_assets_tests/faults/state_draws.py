"""What the state machine of row 19 draws from: messages, and the points at which something dies or is held."""

from hypothesis import strategies as st

from antenna_assets_tests.faults import test_publication_crashes
from antenna_assets_tests.faults.state_model import Draft

STREAM_POINTS = (
    "stream.land.before_sync",
    "stream.land.after_sync",
    "stream.commit.before",
    "stream.commit.files",
    "stream.commit.live",
    "stream.commit.offsets",
    "stream.commit.last_statement",
    "stream.commit.committed",
    "stream.heartbeat.last_statement",
    "stream.heartbeat.committed",
)
MERGE_POINTS = (
    "stream.merge.before_write",
    "stream.merge.after_sync",
    "stream.merge.last_statement",
    "stream.merge.committed",
)
REPLAY_POINTS = ("stream.land.before_sync", "stream.commit.files", "stream.commit.live")
# Each of them outside of a transaction: who is held there keeps nobody else waiting.
HOLDS = (
    "publish.sealed",
    "publish.lake.files_written",
    "publish.lake.committed",
    "publish.hours_done",
    "publish.table.computed",
)
# Passed by every publication, even of an hour that is published already.
KILLS = ("publish.lake.files_written", "publish.lake.committed", "publish.table.copied")

KNOWN = [f"00000000-0000-0000-0000-{number:012}" for number in (1, 4, 8)]
drafts = st.lists(
    st.builds(
        Draft,
        hour=st.integers(0, 3),
        second=st.integers(0, 3599),
        user=st.sampled_from([*KNOWN, "a stranger"]),
        antenna=st.sampled_from(["north", "s\u00fcd"]),
        app=st.sampled_from(["SKYPE", "FACEBOOK"]),
        bytes=st.integers(0, 300_000),
        kind=st.sampled_from(["good", "good", "good", "mendable", "hopeless"]),
        partition=st.integers(0, 1),
    ),
    min_size=1,
    max_size=8,
)
batches = st.sampled_from([3, 400])
passages = st.sampled_from([1, 1, 2, 3, 4])


def deaths(points: tuple[str, ...]) -> st.SearchStrategy[tuple[str, int]]:
    return st.tuples(st.sampled_from(points), passages)


publication_deaths = deaths(
    tuple(sorted({point.partition(":")[0] for point in test_publication_crashes.PUBLICATION}))
)
