"""The events of a day and the windows of its users, as tables of DuckDB, to compute the day anew."""

from collections.abc import Sequence
from datetime import date
from glob import escape

import psycopg
import pyarrow as pa

from antenna_assets.domain.schema import OWN_WINDOWS
from antenna_assets.engines.duckdb_files import register_stores
from antenna_assets.publishing.csv_rows import rows_of
from antenna_assets.publishing.windows import select_own_windows
from antenna_assets.verify.parquet import Parquet


def load_windows(connection: psycopg.Connection, parquet: Parquet, day: date) -> None:
    """Load the tables `own_window` (id, begins, ends) and `billing_window` (begins, ends) of a day.

    In the caller's snapshot.
    """
    own = rows_of(connection, select_own_windows(day), OWN_WINDOWS)
    rows = pa.RecordBatchReader.from_batches(OWN_WINDOWS, own)
    parquet.connection.register("windows", rows)
    parquet.connection.execute("CREATE OR REPLACE TEMP TABLE own_window AS SELECT * FROM windows")
    parquet.connection.unregister("windows")
    ((begins, ends),) = connection.execute(
        "SELECT ledger.period_start('day', %(day)s, zone), ledger.period_start('day', %(day)s + 1, zone)"
        " FROM ledger.billing_zone",
        {"day": day},
    ).fetchall()
    parquet.connection.execute(
        "CREATE OR REPLACE TEMP TABLE billing_window AS"
        " SELECT ?::timestamptz AS begins, ?::timestamptz AS ends",
        [begins, ends],
    )


def load_events(parquet: Parquet, name: str, schema: pa.Schema, files: Sequence[str]) -> None:
    """Load the view `name` of the rows of some files; without files it is empty."""
    if not files:
        parquet.connection.register("no_rows", schema.empty_table())
        parquet.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS FROM no_rows")
        return
    register_stores(parquet.connection, files)
    # A view takes no parameters, but reads variables.
    parquet.connection.execute(f"SET VARIABLE {name} = ?", [[escape(path) for path in files]])
    parquet.connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {name} AS"  # noqa: S608
        f" SELECT * FROM read_parquet(getvariable('{name}'), hive_partitioning = false)"
    )
