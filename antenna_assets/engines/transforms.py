"""The text of each transformation: one SELECT per computed asset, which DuckDB and Spark SQL run unchanged.

No SQL is run here.
"""

from functools import cache

from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.storage.project_files import sql_folder

INPUTS: dict[str, tuple[str, ...]] = {
    "raw_parquet": ("landed",),
    "enriched_usage": ("raw_parquet", "user_metadata", "quota_of_then"),
    **dict.fromkeys(HOURLY_TABLES, ("enriched_usage",)),
    "bytes_agg_user_1d": ("enriched_usage", "billing_window", "own_window"),
}
"""The inputs that each transformation names, by asset."""


class UnknownTransform(KeyError):
    """There is no transformation of this name; the message lists the names."""

    def __str__(self) -> str:
        return str(self.args[0])


@cache
def transform(name: str) -> str:
    """The SELECT that returns the rows of an asset's hour or day.

    Raises:
        UnknownTransform: there is no `sql/transforms/<name>.sql`.
    """
    if name not in INPUTS:
        raise UnknownTransform(f"expected a transformation, one of {', '.join(INPUTS)}; found {name!r}")
    return (sql_folder() / "transforms" / f"{name}.sql").read_text(encoding="utf-8").strip()
