"""Readers that poll an hour of a table, and what each generation of it must look like, from what was sent alone.

A `View` is the hour's whole content in one value. Nothing here asks the pipeline what it published.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

from antenna_assets.simulator.answers import Answers

POLL = 0.05
"""Seconds between two looks."""

View = tuple
NOTHING: View = ()

COLUMNS = {
    "bytes_agg_antenna_1h": ("antenna_id", "sum_antenna_bytes"),
    "bytes_agg_user_1h": ("id", "email", "sum_user_bytes"),
    "bytes_agg_app_1h": ("app", "sum_app_bytes"),
    "users_over_quota_1h": ("id", "email", "quota", "sum_user_bytes"),
}
LAKE = ("raw_parquet", "enriched_usage")


def expected(answers: Answers, hour: datetime) -> dict[str, View]:
    """How each table shows the hour when all that was sent so far is in it."""
    date = hour.isoformat().replace("+00:00", "Z")
    tables = {
        table: _view(
            [tuple(row[name] for name in columns) for row in answers.tables()[table] if row["date"] == date]
        )
        for table, columns in COLUMNS.items()
    }
    rows = next(of["rows"] for of in answers.hours() if of["hour"] == date)
    antennas, users, apps = (tables[table][-1] for table in list(COLUMNS)[:3])
    plain_users = _sorted([(id_, size) for id_, _email, size in users])
    # Rows, and as many places in Kafka.
    return {
        **tables,
        "raw_parquet": (rows, rows, antennas, plain_users, apps),
        "enriched_usage": (rows, rows, antennas, users, apps),
    }


def of_table(connection: psycopg.Connection, table: str, hour: datetime) -> View:
    """How a table of PostgreSQL shows the hour to one SELECT."""
    query = sql.SQL("SELECT {} FROM {} WHERE date = %s").format(
        sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table])), sql.Identifier(table)
    )
    return _view(connection.execute(query, [hour]).fetchall())


def of_lake(root: str, table: str, hour: datetime) -> View:
    """How the newest version of a Delta table shows the hour to one who reads the files that it names."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        delta = DeltaTable(f"{root}/{table}")
    except TableNotFoundError:
        return NOTHING
    partition = [(name, "=", str(getattr(hour, name))) for name in ("year", "month", "day", "hour")]
    # Not `to_pyarrow_table`, after which the interpreter may die at its exit.
    files = [
        pq.read_table(file, partitioning=None) for file in delta.file_uris(file_pruning_predicate=partition)
    ]
    if not files:
        return NOTHING
    events = pa.concat_tables(files)
    places = events.group_by(["kafka_partition", "kafka_offset"]).aggregate([])
    user = ["id"] if table == "raw_parquet" else ["id", "email"]
    sums = tuple(_sums(events, columns) for columns in (["antenna_id"], user, ["app"]))
    return (events.num_rows, places.num_rows, *sums)


class Reader:
    """Polls a view in a thread while the block lasts, and keeps what it saw each time that it changed."""

    def __init__(self, look: Callable[[], View]) -> None:
        self.polls = 0
        self.seen: list[View] = []
        self._look = look
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        if self._errors:
            raise self._errors[0]

    def _read(self) -> None:
        try:
            while not self._stop.wait(POLL):
                view = self._look()
                self.polls += 1
                if not self.seen or view != self.seen[-1]:
                    self.seen.append(view)
        except BaseException as error:
            self._errors.append(error)


def partial(seen: Sequence[View], whole: Sequence[View]) -> list[View]:
    """What was seen and is none of the whole hours, or is an older one than was seen before.

    Args:
        whole: the hour at each step of what was sent, ascending; some steps may look alike in a table.
    """
    found, newest = [], 0
    for view in seen:
        step = next((number for number in range(newest, len(whole)) if whole[number] == view), None)
        if step is None:
            found.append(view)
        else:
            newest = step
    return found


def _view(rows: Sequence[tuple]) -> View:
    """The number of rows, their bytes and the rows themselves; nothing for no row."""
    return (len(rows), int(sum(row[-1] for row in rows)), _sorted(rows)) if rows else NOTHING


def _sums(events: pa.Table, columns: list[str]) -> View:
    summed = events.group_by(columns).aggregate([("bytes", "sum")])
    return _sorted(list(zip(*(summed[name].to_pylist() for name in [*columns, "bytes_sum"]), strict=True)))


def _sorted(rows: Sequence[tuple]) -> View:
    return tuple(sorted(rows, key=repr))
