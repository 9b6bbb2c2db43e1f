"""That an hour holds the bytes that landed for it: no more, no fewer."""

from datetime import datetime

import psycopg

from antenna_assets.ledger.generations import read_generation
from antenna_assets.verify.claims.verdict import Verdict


def bytes_are_conserved(
    connection: psycopg.Connection, hour: datetime, generation: int, *, rows: int | None, bytes_: int
) -> Verdict:
    """Hold what an asset has of a generation against the files that landed for it, or past the horizon what was sealed of them.

    Args:
        rows: None for an asset whose rows are not events.
    """
    sealed = read_generation(connection, hour, generation)
    kept, landed_rows, landed_bytes = connection.execute(
        "SELECT count(*), coalesce(sum(rows), 0)::bigint, coalesce(sum(bytes), 0) FROM ledger.file"
        " WHERE kind = 'landed' AND hour = %s AND batch <= %s",
        [hour, sealed.up_to_batch],
    ).fetchall()[0]
    if not kept:
        landed_rows, landed_bytes = sealed.rows, sealed.bytes
    landed_bytes = int(landed_bytes)
    metrics = {"landed_bytes": landed_bytes, "bytes": bytes_, "difference_bytes": bytes_ - landed_bytes}
    message = f"{landed_bytes:,} bytes landed, {bytes_:,} are here"
    if rows is not None:
        metrics |= {"landed_rows": landed_rows, "rows": rows, "difference_rows": rows - landed_rows}
        message += f"; {landed_rows:,} rows landed, {rows:,} are here"
    return Verdict(bytes_ == landed_bytes and rows in (None, landed_rows), message, metrics)
