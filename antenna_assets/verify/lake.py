"""The lake's tables of an hour against the certificate and against each other: files, versions and rows.

The tables of PostgreSQL that are computed from them are for `tables.py`.
"""

import posixpath
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg

from antenna_assets.domain.hours import hour_key
from antenna_assets.ledger.certificate import Certificate
from antenna_assets.publishing.digests import UNKNOWN_ROWS, file_sha256
from antenna_assets.publishing.lake import Lake
from antenna_assets.publishing.users import users_version, write_users_of_snapshot
from antenna_assets.verify.difference import ABSENT, Difference, compared
from antenna_assets.verify.parquet import Parquet


@dataclass
class LakeFindings:
    """What one table of the lake holds of an hour; `paths` is None where its rows are not those to compare with."""

    paths: list[str] | None = None
    differences: list[Difference] = field(default_factory=list)
    pending: str | None = None


def lake_findings(
    lake: Lake,
    table: str,
    certificate: Certificate,
    before: Sequence[str] | None,
    parquet: Parquet,
    *,
    table_id: str | None,
) -> LakeFindings:
    """Compare an hour of a lake table with its certificate, file by file, and with the files it was made from.

    Args:
        before: the files whose events these must be; None if they are not there any more or not to be believed.
        table_id: Delta's id of the table that the hour was published in, None if nobody wrote it down.
    """
    key, certified = hour_key(certificate.hour), certificate.content["published"][table]
    found = LakeFindings()
    snapshot = lake.hour(table, certificate.hour)
    if snapshot.generation is not None and snapshot.generation > certificate.generation:
        found.pending = f"{table} is already at generation {snapshot.generation} in the lake"
        return found
    found.differences += compared(
        key,
        f"{table}, generation in the lake",
        certificate.generation,
        snapshot.generation if snapshot.generation is not None else ABSENT,
    )
    if table_id not in (None, snapshot.table_id):
        found.differences.append(
            Difference(
                key,
                f"{table}, Delta's id of the table",
                str(table_id),
                f"{snapshot.table_id or ABSENT}: the table was lost"
                f"{' and built anew' if snapshot.table_id else ''}; `antenna backfill --from {key}` publishes the hour in it",
            )
        )
    elif snapshot.version < certified["delta_version"]:
        found.differences += compared(
            key, f"{table}, Delta version at least", certified["delta_version"], snapshot.version
        )
    expected = {posixpath.join(lake.location(table), of["path"]): of["sha256"] for of in certified["files"]}
    unreadable = parquet.unreadable(snapshot.files)
    for path, reason in sorted(unreadable.items()):
        found.differences.append(
            Difference(key, f"{table}, file {_short(lake, path)}", "a parquet file", reason)
        )
    if expected.keys() == set(snapshot.files):
        for path, sha256 in expected.items():
            if path not in unreadable:
                what = f"{table}, SHA-256 of {_short(lake, path)}"
                found.differences += compared(key, what, sha256, file_sha256(path))
    elif before is None:
        what = f"{table}, files in the lake"
        found.differences += compared(key, what, sorted(expected), sorted(snapshot.files))
    else:
        # A run that died between its commit to the lake and the ledger leaves the same rows in other files.
        found.pending = f"{table} was written again and not published: run the hour again"
    if unreadable:
        return found
    rows, bytes_, events = parquet.events(snapshot.files)
    found.differences += compared(
        key,
        table,
        {name: certified[name] for name in ("rows", "bytes")},
        {"rows": rows, "bytes": int(bytes_)},
    )
    if before is not None and parquet.events(before) != (rows, bytes_, events):
        lost, extra = parquet.only_in(before, snapshot.files), parquet.only_in(snapshot.files, before)
        what = f"{table}, events"
        found.differences.append(
            Difference(key, what, lost or "only the events that landed", extra or "not there")
        )
    elif not found.differences:
        found.paths = snapshot.files
    return found


def user_differences(
    connection: psycopg.Connection, certificate: Certificate, paths: Sequence[str], parquet: Parquet
) -> list[Difference]:
    """The users in `enriched_usage`: how many rows are of unknown ones, and while the version holds, who they are."""
    key = hour_key(certificate.hour)
    unknown = parquet.rows(
        UNKNOWN_ROWS.replace("FROM enriched_usage", "FROM read_parquet(?, hive_partitioning = false)"), paths
    )
    rows = unknown[0][0] if unknown else 0
    what = "rows of unknown users in enriched_usage"
    differences = [*compared(key, what, certificate.content["unknown_users"]["rows"], rows)]
    if users_version(connection) == certificate.users_version:
        wrong = _wrongly_enriched(connection, paths, parquet)
        for user, count in wrong:
            what = f"enriched_usage, name, e-mail and quota of user {user}"
            differences.append(Difference(key, what, "as in user_metadata", f"others in {count:,} rows"))
    return differences


def _wrongly_enriched(
    connection: psycopg.Connection, paths: Sequence[str], parquet: Parquet
) -> list[tuple[str, int]]:
    """The first users whose events say something else than `user_metadata`, and in how many rows."""
    with tempfile.TemporaryDirectory() as scratch:
        known = f"{scratch}/users.parquet"
        write_users_of_snapshot(connection, known)
        return parquet.rows(
            "SELECT event.id, count(*) FROM read_parquet(?, hive_partitioning = false) AS event"
            " LEFT JOIN read_parquet(?) AS known ON event.id = known.id"
            " WHERE (event.name, event.email, event.quota) IS DISTINCT FROM (known.name, known.email, known.quota)"
            " GROUP BY event.id ORDER BY event.id LIMIT 5",
            paths,
            known,
        )


def _short(lake: Lake, path: str) -> str:
    return path.removeprefix(f"{lake.root}/")
