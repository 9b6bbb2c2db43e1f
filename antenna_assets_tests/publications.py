"""Publications as the six assets record them, without anything published: for tests of the ledger alone."""

from dataclasses import replace
from datetime import datetime

from antenna_assets.ledger.publications import Publication


def publication(
    asset: str,
    hour: datetime,
    generation: int = 1,
    *,
    rows: int = 0,
    bytes_: int = 0,
    users_version: int = 1,
    version: int = 7,
) -> Publication:
    """One that counts towards the hour's certificate. `version` is the Delta version, if the asset is in the lake."""
    made = Publication(
        asset, hour, generation, rows, bytes_, users_version, "run", content={"sha256": "e3b0"}
    )
    if asset == "raw_parquet":
        return replace(made, users_version=None, lake_version=version, content={"files": []})
    if asset == "enriched_usage":
        return replace(made, lake_version=version, content={"files": [], "unknown_rows": 0})
    return made
