"""The claim that an asset's hour has exactly the bytes that landed for it."""

from datetime import datetime

import psycopg

from antenna_assets.domain.counted import counted
from antenna_assets.ledger.generations import read_generation
from antenna_assets.verify.claims.verdict import Verdict


def bytes_are_conserved(
    connection: psycopg.Connection, hour: datetime, generation: int, *, rows: int | None, bytes_: int
) -> Verdict:
    """Compare an asset's rows of a generation with the files that landed for it.

    Past the horizon, when the files are gone, they are compared with the sums recorded at the seal.

    Args:
        rows: the asset's rows; None if its rows are not events.
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
        message += f"; {counted(landed_rows, 'row')} landed, {rows:,} are here"
    return Verdict(bytes_ == landed_bytes and rows in (None, landed_rows), message, metrics)
