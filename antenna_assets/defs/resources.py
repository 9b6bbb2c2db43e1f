"""The resources of assets, checks and sensors: PostgreSQL, the lake, the engine.

Each is opened when it is first used, so that loading the definitions needs no service. Addresses, which may
hold a secret, are not configured values, as Dagster shows those to everyone and stores them with each job:
they are read from the settings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import dagster as dg
import psycopg
from pydantic import Field, PrivateAttr

from antenna_assets.clients.postgres import connect, transient_errors_explained
from antenna_assets.clients.postgres_session import RUN
from antenna_assets.defs.run_lock import hold
from antenna_assets.engines.contract import Engine
from antenna_assets.errors import EngineError
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class PostgresResource(dg.ConfigurableResource):
    """PostgreSQL, with the ledger and the serving tables; a run that uses it holds its liveness lock."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["PostgresResource"]:
        """The resource; during a run the run's liveness lock is held. A sensor's tick takes none."""
        if context.run is None:
            yield self
        else:
            with hold(_address(), context.run.run_id):
                yield self

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """A connection in autocommit mode, closed at the end of the block."""
        with (
            connect(_address(), application="antenna dagster", limits=RUN) as connection,
            transient_errors_explained(),
        ):
            yield connection


def _address() -> str:
    from antenna_assets.stack.services import postgres_url

    return postgres_url(load_settings())


class LakeResource(dg.ConfigurableResource):
    """The lake: landed files and Delta tables."""

    root: str = Field(description="absolute path or URI of the lake")

    def open(self) -> Lake:
        """The lake's Delta tables."""
        return Lake(self.root)

    def landed_file(self, path: str) -> str:
        """The location of a file that the ledger names relative to the lake's root."""
        return f"{self.root.rstrip('/')}/{path}"


class EngineResource(dg.ConfigurableResource):
    """The engine of the transformations: DuckDB in this process, or Spark."""

    name: Literal["duckdb", "spark"] = "duckdb"
    memory_limit: str | None = Field(
        None,
        description="most memory of DuckDB, as 3GiB; beyond it spills to disk; unset: 80 % of the machine's",
    )
    spill_folder: str | None = Field(
        None, description="where DuckDB spills to; unset: the system's folder for temporary files"
    )
    spark_config: dict[str, str] | None = Field(
        default=None,
        description="configuration of the Spark session; unset: as the settings say, where an address of "
        "Spark Connect with its token stays",
    )
    _engine: Engine | None = PrivateAttr(None)

    def start(self, most_rows: int | None = None) -> Engine:
        """The engine of this run: started at its first use, closed when the run ends.

        Args:
            most_rows: the landed rows of the run's largest hour; None if that is not known.
        """
        if self._engine is None:
            self._engine = self._spark() if self.name == "spark" else self._duckdb(most_rows)
        return self._engine

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Close the engine, if the run used it."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _duckdb(self, most_rows: int | None) -> Engine:
        from antenna_assets.engines.duckdb import ROW_GROUP, DuckDBEngine

        # Of one row group a second thread does nothing but merge its part, which costs more than it saves
        # (decision 34); the other core belongs to another run.
        one = most_rows is not None and most_rows <= ROW_GROUP
        return DuckDBEngine(
            threads=1 if one else None, memory_limit=self.memory_limit, temp_directory=self.spill_folder
        )

    def _spark(self) -> Engine:
        # Imported here: it imports pyspark, a third of a second that runs on DuckDB need not spend.
        from dagster_pyspark import LazyPySparkResource

        from antenna_assets.engines.spark import SparkEngine
        from antenna_assets.engines.spark_session import start_java

        config = spark_config(load_settings()) if self.spark_config is None else self.spark_config
        remote = "spark.remote" in config
        if remote and (find_spec("grpc_status") is None or find_spec("pandas") is None):
            raise EngineError(
                "Spark Connect needs packages that are not installed: pip install 'antenna-assets[connect]'"
            )
        spark = LazyPySparkResource(spark_config=config)

        def session() -> "SparkSession":
            if not remote:
                start_java(config)
            return spark.spark_session

        return SparkEngine(session)


def default_resources(settings: Settings) -> dict[str, object]:
    """The resources that the settings describe, by name."""
    return {
        "postgres": PostgresResource(),
        "lake": LakeResource(root=settings.lake_uri),
        "engine": default_engine(settings),
    }


def default_engine(settings: Settings) -> EngineResource:
    """The engine that the settings describe.

    Raises:
        EngineError: it is Spark, which is not installed: known when the definitions load, not in each run.
    """
    from antenna_assets.engines.duckdb import EMBEDDED_MEMORY

    if settings.engine == "spark":
        from antenna_assets.engines.spark_session import require_pyspark

        require_pyspark("the hourly work", without="ANTENNA_ENGINE=duckdb")

    return EngineResource(
        name=settings.engine,
        memory_limit=EMBEDDED_MEMORY,
        # Not the system's folder, which may be memory.
        spill_folder=str(settings.home / "spill"),
    )


def spark_config(settings: Settings) -> dict[str, str]:
    """The configuration of the Spark session that the settings describe."""
    from antenna_assets.engines.spark_session import configuration, store_configuration

    if settings.spark_remote:
        return {"spark.remote": settings.spark_remote}
    return {
        "spark.master": settings.spark_master,
        **configuration(settings.spark_master),
        **store_configuration(settings.lake_uri),
    }
