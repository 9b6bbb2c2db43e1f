"""What assets, checks and sensors are given: PostgreSQL, the lake, the engine.

Each opens its service when it is first used, so that loading the definitions needs none of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import dagster as dg
import psycopg
from pydantic import Field

from antenna_assets.database import connect
from antenna_assets.engines.contract import Engine
from antenna_assets.lake import Lake
from antenna_assets.run_lock import held
from antenna_assets.settings import Settings, SettingsError, load_settings


class PostgresResource(dg.ConfigurableResource):
    """PostgreSQL with the ledger and the serving tables. A run that is given it shows there that its worker lives."""

    url: str | None = Field(None, description="address; unset: what the settings or the embedded service say")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["PostgresResource"]:
        """The resource; for a run, with the run's lock held until it ends. A sensor's tick takes none."""
        if context.run is None:
            yield self
        else:
            with held(self._address(), context.run.run_id):
                yield self

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """A connection in autocommit mode, closed at the end of the block."""
        with connect(self._address(), application="antenna dagster") as connection:
            yield connection

    def _address(self) -> str:
        from antenna_assets.stack.services import postgres_url

        return self.url or postgres_url(load_settings())


class LakeResource(dg.ConfigurableResource):
    """The lake: landed files and Delta tables."""

    root: str = Field(description="absolute path or URI of the lake")

    def open(self) -> Lake:
        """The lake's Delta tables."""
        return Lake(self.root)

    def landed_file(self, path: str) -> str:
        """Where a file lies that the ledger names relative to the lake's root."""
        return f"{self.root.rstrip('/')}/{path}"


class EngineResource(dg.ConfigurableResource):
    """What runs the transformations: DuckDB in this process, or Spark."""

    name: Literal["duckdb", "spark"] = "duckdb"
    spark_config: dict[str, str] = Field(
        {}, description="configuration of the Spark session, if Spark is the engine"
    )

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """The engine, closed at the end of the block."""
        if self.name == "spark":
            # Here and not above: it imports pyspark, a third of a second that DuckDB's runs need not pay.
            from dagster_pyspark import LazyPySparkResource

            from antenna_assets.engines.spark import SparkEngine
            from antenna_assets.spark_session import use_java

            use_java()
            spark = LazyPySparkResource(spark_config=self.spark_config)
            engine: Engine = SparkEngine(lambda: spark.spark_session)
        else:
            from antenna_assets.engines.duckdb import DuckDBEngine

            engine = DuckDBEngine()
        try:
            yield engine
        finally:
            engine.close()


def default_resources(settings: Settings) -> dict[str, object]:
    """The resources that the settings describe, by name.

    Raises:
        SettingsError: they ask for Spark Connect.
    """
    from antenna_assets.spark_session import configuration

    if settings.spark_remote:
        raise SettingsError(
            "ANTENNA_SPARK_REMOTE: Spark Connect is not supported yet; unset it, and point ANTENNA_SPARK_MASTER to a master"
        )
    spark_config = {"spark.master": settings.spark_master, **configuration(settings.spark_master)}
    return {
        "postgres": PostgresResource(url=settings.postgres_url),
        "lake": LakeResource(root=settings.lake_uri),
        "engine": EngineResource(name=settings.engine, spark_config=spark_config),
    }
