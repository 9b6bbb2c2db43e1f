"""The claim that an asset's hour has exactly the bytes that landed for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg

from antenna_assets.domain.counted import counted
from antenna_assets.ledger.generations import read_generations
from antenna_assets.verify.claims.verdict import Verdict


@dataclass(frozen=True)
class Held:
    """What an asset holds of an hour at a generation.

    Attributes:
        rows: None if they are not events.
    """

    hour: datetime
    generation: int
    rows: int | None
    bytes: int


def bytes_are_conserved(connection: psycopg.Connection, assets: Sequence[Held]) -> dict[datetime, Verdict]:
    """Compare an asset's rows of some hours with the files that landed for their generations.

    Past the horizon, when the files are gone, they are compared with the sums recorded at the seal.
    """
    sealed = read_generations(connection, {one.hour: one.generation for one in assets})
    landed = connection.execute(
        "SELECT hour, sum(rows)::bigint, sum(bytes) FROM ledger.file"
        " JOIN unnest(%s::timestamptz[], %s::bigint[]) AS sealed (hour, up_to_batch) USING (hour)"
        " WHERE kind = 'landed' AND batch <= up_to_batch GROUP BY hour",
        [[*sealed], [generation.up_to_batch for generation in sealed.values()]],
    )
    of_files = {hour: (rows, int(bytes_)) for hour, rows, bytes_ in landed}
    return {
        one.hour: _verdict(one, *of_files.get(one.hour, (sealed[one.hour].rows, sealed[one.hour].bytes)))
        for one in assets
    }


def _verdict(held: Held, landed_rows: int, landed_bytes: int) -> Verdict:
    metrics = {
        "landed_bytes": landed_bytes,
        "bytes": held.bytes,
        "difference_bytes": held.bytes - landed_bytes,
    }
    message = f"{landed_bytes:,} bytes landed, {held.bytes:,} are here"
    if held.rows is not None:
        metrics |= {"landed_rows": landed_rows, "rows": held.rows, "difference_rows": held.rows - landed_rows}
        message += f"; {counted(landed_rows, 'row')} landed, {held.rows:,} are here"
    return Verdict(held.bytes == landed_bytes and held.rows in (None, landed_rows), message, metrics)
