"""That an hour holds the bytes that landed for it: no more, no fewer."""

from datetime import datetime

import psycopg

from antenna_assets.claims.verdict import Verdict
from antenna_assets.ledger import read_generation


def bytes_are_conserved(
    connection: psycopg.Connection, hour: datetime, generation: int, *, rows: int | None, bytes_: int
) -> Verdict:
    """Hold what an asset has of a generation against the files that landed for it, kept or past their retention.

    Args:
        rows: None for an asset whose rows are not events.
    """
    up_to_batch = read_generation(connection, hour, generation).up_to_batch
    landed_rows, landed_bytes = connection.execute(
        "SELECT coalesce(sum(rows), 0)::bigint, coalesce(sum(bytes), 0)::bigint FROM ("
        " SELECT rows, bytes FROM ledger.file WHERE kind = 'landed' AND hour = %(hour)s AND batch <= %(batch)s"
        " UNION ALL SELECT rows, bytes FROM ledger.expired_file"
        "  WHERE kind = 'landed' AND hour = %(hour)s AND batch <= %(batch)s"
        " UNION ALL SELECT rows, bytes FROM ledger.expired_hour WHERE hour = %(hour)s) AS landed",
        {"hour": hour, "batch": up_to_batch},
    ).fetchall()[0]
    figures = {"landed_bytes": landed_bytes, "bytes": bytes_, "difference_bytes": bytes_ - landed_bytes}
    told = f"{landed_bytes:,} bytes landed, {bytes_:,} are here"
    if rows is not None:
        figures |= {"landed_rows": landed_rows, "rows": rows, "difference_rows": rows - landed_rows}
        told += f"; {landed_rows:,} rows landed, {rows:,} are here"
    return Verdict(bytes_ == landed_bytes and rows in (None, landed_rows), told, figures)
