"""An hour of the lake's tables, compared with its certificate and with the files it was computed from.

The serving tables in PostgreSQL, which are computed from these, are compared in `tables.py`.
"""

import posixpath
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key
from antenna_assets.ledger.certificate import Certificate
from antenna_assets.publishing.digests import file_sha256
from antenna_assets.publishing.lake import Lake
from antenna_assets.publishing.users import few_ids, last_instant, users_version, write_users_of_snapshot
from antenna_assets.verify.difference import ABSENT, Difference, compare
from antenna_assets.verify.parquet import Parquet


@dataclass
class LakeFindings:
    """How one lake table's hour compares.

    Attributes:
        paths: its files; None if what follows must not be compared with their rows.
        pending: why the hour is not wholly published; None if it is.
    """

    paths: list[str] | None = None
    differences: list[Difference] = field(default_factory=list)
    pending: str | None = None


def lake_findings(
    lake: Lake,
    table: str,
    certificate: Certificate,
    upstream: Sequence[str] | None,
    parquet: Parquet,
    *,
    table_id: str | None,
) -> LakeFindings:
    """Compare an hour of a lake table with its certificate, file by file, and with the files it was made
    from.

    Args:
        upstream: the files that must hold the same events; None if they are past retention or differ
            themselves.
        table_id: Delta's id of the table that the hour was published in; None if it was not recorded.
    """
    key, certified = hour_key(certificate.hour), certificate.content["published"][table]
    findings = LakeFindings()
    snapshot = lake.hour(table, certificate.hour)
    if snapshot.generation is not None and snapshot.generation > certificate.generation:
        findings.pending = f"{table} is already at generation {snapshot.generation} in the lake"
        return findings
    findings.differences += compare(
        key,
        f"{table}, generation in the lake",
        certificate.generation,
        snapshot.generation if snapshot.generation is not None else ABSENT,
    )
    if table_id not in (None, snapshot.table_id):
        findings.differences.append(
            Difference(
                key,
                f"{table}, Delta's id of the table",
                str(table_id),
                f"{snapshot.table_id or ABSENT}: the table was lost"
                f"{' and rebuilt' if snapshot.table_id else ''};"
                f" `antenna backfill --from {key}` publishes the hour in it",
            )
        )
    elif snapshot.version < certified["delta_version"]:
        findings.differences += compare(
            key, f"{table}, Delta version at least", certified["delta_version"], snapshot.version
        )
    expected = {
        posixpath.join(lake.location(table), file["path"]): file["sha256"] for file in certified["files"]
    }
    unreadable = parquet.unreadable(snapshot.files)
    for path, reason in sorted(unreadable.items()):
        findings.differences.append(
            Difference(key, f"{table}, file {_short(lake, path)}", "a parquet file", reason)
        )
    if expected.keys() == set(snapshot.files):
        for path, sha256 in expected.items():
            if path not in unreadable:
                what = f"{table}, SHA-256 of {_short(lake, path)}"
                findings.differences += compare(key, what, sha256, file_sha256(path))
    elif upstream is None:
        what = f"{table}, files in the lake"
        findings.differences += compare(key, what, sorted(expected), sorted(snapshot.files))
    else:
        # A run that was killed between its commits to the lake and to the ledger leaves the same rows in
        # other files.
        findings.pending = f"{table} was written again and not published: run the hour again"
    if unreadable:
        return findings
    rows, bytes_, events = parquet.events(snapshot.files)
    findings.differences += compare(
        key,
        table,
        {name: certified[name] for name in ("rows", "bytes")},
        {"rows": rows, "bytes": int(bytes_)},
    )
    if upstream is not None and parquet.events(upstream) != (rows, bytes_, events):
        lost, extra = parquet.only_in(upstream, snapshot.files), parquet.only_in(snapshot.files, upstream)
        what = f"{table}, events"
        findings.differences.append(
            Difference(key, what, lost or "only the events that landed", extra or "nothing else")
        )
    elif not findings.differences:
        findings.paths = snapshot.files
    return findings


def user_differences(
    connection: psycopg.Connection, certificate: Certificate, paths: Sequence[str], parquet: Parquet
) -> list[Difference]:
    """Compare the rows of unknown users; while the users have not changed, also everyone's metadata."""
    key = hour_key(certificate.hour)
    unknown = parquet.rows(
        "SELECT count(*) FROM read_parquet(?, hive_partitioning = false) WHERE email IS NULL", paths
    )
    rows = unknown[0][0] if unknown else 0
    what = "rows of unknown users in enriched_usage"
    differences = [*compare(key, what, certificate.content["unknown_users"]["rows"], rows)]
    if users_version(connection) == certificate.users_version:
        for user, rows in _wrongly_enriched(connection, certificate.hour, paths, parquet):
            what = f"enriched_usage, name, e-mail and quota of user {user}"
            differences.append(
                Difference(key, what, "as they were then", f"others in {counted(rows, 'row')}")
            )
    return differences


def _wrongly_enriched(
    connection: psycopg.Connection, hour: datetime, paths: Sequence[str], parquet: Parquet
) -> list[tuple[str, int]]:
    """The first users whose events disagree with metadata or quota of then, and in how many rows."""
    with tempfile.TemporaryDirectory() as scratch:
        known = f"{scratch}/users.parquet"
        ids = few_ids(connection, lambda most: _ids_in(paths, parquet, most))
        write_users_of_snapshot(connection, known, last_instant(hour), ids)
        return parquet.rows(
            "SELECT event.id, count(*) FROM read_parquet(?, hive_partitioning = false) AS event"
            " LEFT JOIN read_parquet(?) AS known ON event.id = known.id"
            " WHERE (event.name, event.email, event.quota)"
            "  IS DISTINCT FROM (known.name, known.email, known.quota)"
            " GROUP BY event.id ORDER BY event.id LIMIT 5",
            paths,
            known,
        )


def _ids_in(paths: Sequence[str], parquet: Parquet, most: int) -> list[str]:
    query = "SELECT DISTINCT id FROM read_parquet(?, hive_partitioning = false) LIMIT ?"
    return [id_ for (id_,) in parquet.rows(query, paths, most)]


def _short(lake: Lake, path: str) -> str:
    return path.removeprefix(f"{lake.root}/")
