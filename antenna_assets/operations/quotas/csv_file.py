"""`antenna quota import`: changes of quotas from a CSV file, all or none.

The file goes to PostgreSQL as it is, in blocks, and is judged there: no line passes through Python.
"""

import csv
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from antenna_assets.domain.listing import first_few
from antenna_assets.operations.quotas.changes import Changed, change_users
from antenna_assets.operations.quotas.quota import MOST, PERIODS, QuotaRefused

COLUMNS = ("id", "period", "quota")
OPTIONAL = ("valid_from",)

SHOWN = 10
"""How many faults one error names."""

_BLOCK_BYTES = 2**20
_BOM = b"\xef\xbb\xbf"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_LINE = re.compile(r"line (\d+)")


def import_quotas(connection: psycopg.Connection, file: Path, *, dry_run: bool = False) -> Changed:
    """Change the quotas that a CSV file names.

    Its first line names the columns: `id`, `period` (hour, day or month), `quota` (bytes, unlimited or plan)
    and, if it is there, `valid_from` (an instant with a zone; empty: now).

    Raises:
        QuotaRefused: the file cannot be read, or lines are wrong; the message names them, and nothing was
            changed.
    """

    def fill(of: psycopg.Connection) -> None:
        of.execute(
            "CREATE TEMP TABLE quota_line (number bigint GENERATED ALWAYS AS IDENTITY (START 2), id text,"
            " period text, quota text, valid_from text) ON COMMIT DROP"
        )
        _copy(of, file)
        _require_right(of, file)
        of.execute(
            "INSERT INTO quota_asked (id, period, valid_from, quota, ended)"
            " SELECT id, period, valid_from::timestamptz,"
            "  CASE WHEN quota NOT IN ('unlimited', 'plan') THEN quota::bigint END, quota = 'plan'"
            " FROM quota_line"
        )

    return change_users(connection, fill, dry_run=dry_run)


def _copy(connection: psycopg.Connection, file: Path) -> None:
    """The lines of the file into `quota_line`."""
    try:
        with file.open("rb") as opened:
            if opened.read(len(_BOM)) != _BOM:
                opened.seek(0)
            columns = _columns(opened.readline().decode(), file)
            statement = sql.SQL("COPY quota_line ({}) FROM STDIN (FORMAT csv)").format(
                sql.SQL(", ").join(map(sql.Identifier, columns))
            )
            with connection.cursor().copy(statement) as writer:
                while block := opened.read(_BLOCK_BYTES):
                    writer.write(block)
    except (OSError, UnicodeDecodeError) as error:
        raise QuotaRefused(f"expected a CSV file in UTF-8 at {file}: {error}") from error
    except psycopg.DataError as error:
        line = _LINE.search(error.diag.context or "")
        where = f"line {int(line[1]) + 1}" if line else "its lines"
        raise QuotaRefused(
            f"{file}: {where}: expected {', '.join(columns)} as CSV in UTF-8: {error.diag.message_primary};"
            " nothing was changed"
        ) from error


def _columns(header: str, file: Path) -> Sequence[str]:
    columns = next(csv.reader([header]), [])
    if not set(COLUMNS) <= set(columns) <= {*COLUMNS, *OPTIONAL} or len(columns) != len(set(columns)):
        raise QuotaRefused(
            f"{file}: expected a first line with the columns {', '.join(COLUMNS)}, and perhaps "
            f"{', '.join(OPTIONAL)}; found {header.strip()!r}"
        )
    return columns


_FAULTS = """
    SELECT number, fault FROM (
        SELECT number, CASE
            WHEN line.id IS NULL THEN 'expected the id of a user, found none'
            WHEN users.id IS NULL
                THEN format('expected a user of user_metadata, found %%L', left(line.id, 64))
            WHEN period IS NULL OR period <> ALL (%(periods)s)
                THEN format('expected hour, day or month, found %%L', left(period, 64))
            WHEN line.quota IS NULL THEN 'expected a quota, found none'
            WHEN line.quota NOT IN ('unlimited', 'plan') AND (line.quota !~ '^[0-9]{1,19}$'
                    OR (length(line.quota) = 19 AND line.quota COLLATE "C" > %(most)s))
                THEN format('expected bytes from 0 to 2^63-1, unlimited or plan, found %%L',
                    left(line.quota, 64))
            WHEN valid_from = ANY (%(no_instants)s)
                THEN format('expected an instant with a zone such as 2026-11-20T10:00:00Z, found %%L',
                    left(valid_from, 64))
            WHEN twice THEN 'expected each user once a period and instant, found it on another line as well'
        END AS fault
        FROM (
            SELECT *, count(*) OVER (PARTITION BY id, period, valid_from) > 1 AS twice FROM quota_line
        ) AS line LEFT JOIN user_metadata AS users ON users.id = line.id
    ) AS judged WHERE fault IS NOT NULL ORDER BY number LIMIT %(shown)s
"""


def _require_right(connection: psycopg.Connection, file: Path) -> None:
    values = {
        "periods": list(PERIODS),
        "most": str(MOST),
        "no_instants": _no_instants(connection),
        "shown": SHOWN + 1,
    }
    faults = connection.execute(_FAULTS.encode(), values).fetchall()
    if faults:
        named = [f"line {number}: {fault}" for number, fault in faults]
        more = "; and more" if len(named) > SHOWN else ""
        raise QuotaRefused(
            f"{file}: {first_few(named[:SHOWN], SHOWN, separator='; ')}{more}; nothing was changed"
        )


def _no_instants(connection: psycopg.Connection) -> list[str]:
    """The texts of `valid_from` that are no instants. A file has few different ones."""
    rows = connection.execute("SELECT DISTINCT valid_from FROM quota_line WHERE valid_from IS NOT NULL")
    return [text for (text,) in rows if not _is_instant(text)]


def _is_instant(text: str) -> bool:
    if not _INSTANT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
