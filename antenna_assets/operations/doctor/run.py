"""The checks in order, from the machine up to the lake."""

from collections.abc import Callable, Iterator

from antenna_assets.clients.postgres_errors import DatabaseUnfit
from antenna_assets.operations.doctor.finding import UP, Finding, Problem
from antenna_assets.operations.doctor.lake import lake_and_ledger, lake_storage
from antenna_assets.operations.doctor.machine import (
    dagster_home,
    free_disk,
    jar_set,
    java_runtime,
    listen_ports,
    python_version,
    spark_connector,
    writable,
)
from antenna_assets.operations.doctor.servers import (
    clock_offset,
    kafka_brokers,
    old_previews,
    postgres_server,
    topic_settings,
)
from antenna_assets.settings import Settings
from antenna_assets.stack import services


def findings(settings: Settings) -> Iterator[Finding]:
    """Check what these settings need, from the machine up to the lake, and yield the findings."""
    on_spark = settings.stream_engine == "spark" or (settings.engine == "spark" and not settings.spark_remote)
    with_kafka = services.external_kafka(settings) is None
    checks: list[tuple[str, Callable[[], str]]] = [
        ("Python", python_version),
        *([("Java", java_runtime)] if on_spark or with_kafka else []),
        *([("Spark connector", spark_connector)] if on_spark else []),
        *([("Kafka jars", lambda: jar_set("kafka"))] if with_kafka else []),
        ("state directory", lambda: writable(settings.home, "ANTENNA_HOME")),
        ("disk", lambda: free_disk(settings.home)),
        ("lake", lambda: lake_storage(settings)),
        ("PostgreSQL", lambda: postgres_server(settings)),
        ("clock", lambda: clock_offset(settings)),
        ("lake and ledger", lambda: lake_and_ledger(settings)),
        ("Dagster's old previews", lambda: old_previews(settings)),
        ("Kafka", lambda: kafka_brokers(settings)),
        ("topic", lambda: topic_settings(settings)),
        ("ports", lambda: listen_ports(settings)),
        ("DAGSTER_HOME", dagster_home),
    ]
    answered: set[str] = set()
    for name, check in checks:
        # A PostgreSQL that did not answer would only be waited for again.
        if name in ("clock", "lake and ledger", "Dagster's old previews") and "PostgreSQL" not in answered:
            continue
        try:
            yield Finding(name, True, check())
            answered.add(name)
        except Problem as problem:
            yield Finding(name, False, problem.found, problem.fix)
        except services.ServicesError as error:
            yield Finding(name, False, str(error).removesuffix(f"; {UP}"), UP)
        except DatabaseUnfit as error:
            found, _, fix = str(error).partition("; ")
            yield Finding(name, False, found, fix or "correct ANTENNA_POSTGRES_URL")
        except Exception as error:  # A check that fails is a finding, too.
            yield Finding(
                name, False, f"{type(error).__name__}: {error}", "report this as an issue of this project"
            )
