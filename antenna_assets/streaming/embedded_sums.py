"""The engine that sums up landed files in this process."""

from collections.abc import Iterator
from contextlib import contextmanager

from antenna_assets.engines.contract import Engine
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.settings import Settings

SUMS_MEMORY = "256MiB"
"""DuckDB's memory limit for the sums of a micro-batch; beyond it DuckDB spills to the state directory."""


@contextmanager
def embedded_sums(settings: Settings) -> Iterator[Engine]:
    """An engine for `read_back`; closed after the block."""
    engine = DuckDBEngine(memory_limit=SUMS_MEMORY, temp_directory=str(settings.home / "spill"))
    try:
        yield engine
    finally:
        engine.close()
