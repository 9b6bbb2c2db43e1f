"""Checks of the lake: its storage, the logs of its tables, and whether it belongs to the ledger.

Each check returns what it found, or raises `Problem` with the fix.
"""

from pathlib import Path

from antenna_assets.clients.migrations import require_migrated
from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_errors import DatabaseError, DatabaseUnfit
from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.listing import first_few
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.ledger.lake_identity import WrongLake, require_matching_lake
from antenna_assets.operations.doctor.finding import NAMED, UP, Problem
from antenna_assets.operations.doctor.machine import writable
from antenna_assets.operations.rebuild import missing_hours
from antenna_assets.publishing.delta_log import torn_files
from antenna_assets.publishing.lake import Lake, LakeError
from antenna_assets.settings import Settings, is_local
from antenna_assets.stack import services
from antenna_assets.storage.paths import StoreError, lake_path, require_conditional_writes, require_store


def lake_storage(settings: Settings) -> str:
    uri = settings.lake_uri
    if not is_local(uri):
        try:
            require_store(uri)
        except StoreError as error:
            raise Problem(
                str(error),
                "check ANTENNA_LAKE, the cloud's credentials and, if it has one of its own, its address",
            ) from error
        try:
            require_conditional_writes(uri)
        except StoreError as error:
            raise Problem(
                str(error),
                "give its login the right to write, or use a store that supports conditional writes, perhaps"
                " a newer version of this one",
            ) from error
        return f"{uri} can be listed and written, and writes no name twice{_table_logs(settings)}"
    return writable(Path(uri), "ANTENNA_LAKE") + _table_logs(settings)


def _table_logs(settings: Settings) -> str:
    """Check the logs of the lake's tables."""
    for table in LAKE_TABLES:
        torn = torn_files(lake_path(settings.lake_uri) / table)
        if torn:
            named = first_few([*map(str, torn)], NAMED, separator="; ")
            raise Problem(f"the log of {table} is torn: {named}", f"run `antenna rebuild-table {table}`")
    return ", and the logs of its tables are complete"


def lake_and_ledger(settings: Settings) -> str:
    try:
        with connect(services.postgres_url(settings)) as connection:
            require_migrated(connection)
            require_matching_lake(connection, settings.lake_uri)
            for table in LAKE_TABLES:
                missing = missing_hours(connection, Lake(settings.lake_uri), table)
                if missing:
                    raise Problem(
                        f"{table} lacks {counted(len(missing), 'hour')} that the ledger has published, the "
                        f"first is {hour_key(missing[0].hour)}",
                        f"run `antenna rebuild-table {table}`",
                    )
    except DatabaseUnfit:
        raise
    except DatabaseError as error:
        raise Problem(str(error), UP) from error
    except WrongLake as error:
        found, _, fix = str(error).partition("; ")
        raise Problem(found, fix) from error
    except (LakeError, StoreError) as error:
        raise Problem(str(error), "see the finding on the lake above") from error
    return "belong together, and the lake holds what the ledger has published"
