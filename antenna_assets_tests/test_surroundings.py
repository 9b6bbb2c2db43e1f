"""proofs.md, row 40: what surrounds a process changes nothing: Kubernetes' variables, another Spark, Hadoop or Java
configuration, a locale, a user id without a name.
"""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

import antenna_assets
from antenna_assets.settings import PREFIX, Settings, SettingsError, is_service_variable, load_settings
from antenna_assets.stack import java
from antenna_assets.storage import disk
from antenna_assets_tests.end_to_end.test_pipeline import scenario, send
from antenna_assets_tests.stream_engines import EACH_ENGINE

OF_A_SERVICE = {
    "ANTENNA_ASSETS_SERVICE_HOST": "10.0.0.7",
    "ANTENNA_ASSETS_SERVICE_PORT": "3030",
    "ANTENNA_ASSETS_SERVICE_PORT_GRPC": "3030",
    "ANTENNA_ASSETS_PORT": "tcp://10.0.0.7:3030",
    "ANTENNA_ASSETS_PORT_3030_TCP": "tcp://10.0.0.7:3030",
    "ANTENNA_ASSETS_PORT_3030_TCP_PROTO": "tcp",
    "ANTENNA_ASSETS_PORT_3030_TCP_PORT": "3030",
    "ANTENNA_ASSETS_PORT_3030_TCP_ADDR": "10.0.0.7",
    # A service that is called `antenna`, and one whose name is a setting's.
    "ANTENNA_SERVICE_HOST": "10.0.0.8",
    "ANTENNA_PORT": "tcp://10.0.0.8:80",
    "ANTENNA_PORT_80_UDP_ADDR": "10.0.0.8",
    "ANTENNA_TOPIC_SERVICE_HOST": "10.0.0.9",
    "ANTENNA_TOPIC_PORT": "tcp://10.0.0.9:80",
}


def test_row_40_variables_that_kubernetes_makes_of_services_are_no_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = load_settings()
    for name, value in OF_A_SERVICE.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == plain


@pytest.mark.parametrize(
    "name",
    [
        "ANTENNA_TOPICS",
        "ANTENNA_HOST",
        "ANTENNA_SERVICE",
        "ANTENNA_ASSETS_SERVICE",
        "ANTENNA_PORTS",
        "ANTENNA_LAKEPORT",
    ],
)
def test_row_40_a_misspelt_setting_is_still_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError, match=f"{name} is not a setting"):
        load_settings()


def test_row_40_no_setting_has_a_name_that_kubernetes_could_make() -> None:
    assert [name for name in Settings.model_fields if is_service_variable(PREFIX + name.upper())] == []


def test_row_40_a_full_disk_of_postgresql_is_known_in_every_language() -> None:
    assert disk.is_full(psycopg.errors.DiskFull("Auf dem Gerät ist kein Speicherplatz mehr verfügbar"))
    assert not disk.is_full(psycopg.errors.UniqueViolation("doppelter Schlüsselwert"))


def test_row_40_a_java_is_found_whatever_other_programs_ask_of_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = java.java_home()
    found = java.java_version(home)
    for name in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS"):
        monkeypatch.setenv(name, "-XX:+NoSuchOption -javaagent:/nowhere.jar")
    assert "NoSuchOption" not in java._run_java(home / "bin" / "java", "-version")
    assert java.java_version(home) == found


def surroundings(folder: Path) -> dict[str, str]:
    """An environment in which nothing of ours would start, or would start as something else."""
    spark, hadoop = folder / "other-spark", folder / "other-hadoop"
    for made in (spark, hadoop):
        made.mkdir()
    (spark / "spark-defaults.conf").write_text(
        "spark.master spark://127.0.0.1:9\nspark.sql.session.timeZone Asia/Tokyo\nspark.jars /nowhere.jar\n"
        "spark.sql.ansi.enabled false\nspark.driver.extraClassPath /nowhere\n"
    )
    (spark / "spark-env.sh").write_text("exit 7\n")
    (hadoop / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://127.0.0.1:9</value></property>"
        "<property><name>hadoop.security.authentication</name><value>kerberos</value></property></configuration>"
    )
    return {
        **os.environ,
        **OF_A_SERVICE,
        "SPARK_HOME": str(spark),
        "SPARK_CONF_DIR": str(spark),
        "SPARK_REMOTE": "sc://127.0.0.1:9",
        "SPARK_LOCAL_IP": "192.0.2.77",
        "HADOOP_HOME": str(hadoop),
        "HADOOP_CONF_DIR": str(hadoop),
        "YARN_CONF_DIR": str(hadoop),
        "CLASSPATH": str(hadoop),
        "JAVA_TOOL_OPTIONS": "-Duser.language=tr -Duser.country=TR -XX:+UseSerialGC",
        "_JAVA_OPTIONS": "-Duser.language=tr -Duser.country=TR -Dspark.master=local[7]",
        "JDK_JAVA_OPTIONS": "-XX:+NoSuchOption",
        "PYSPARK_PYTHON": "/nowhere/python",
        "PYSPARK_DRIVER_PYTHON": "/nowhere/python",
        "PYSPARK_SUBMIT_ARGS": "--master spark://127.0.0.1:9 pyspark-shell",
        "PYSPARK_GATEWAY_PORT": "9",
        "LC_ALL": "tr_TR.UTF-8",
        "LANG": "de_DE.UTF-8",
        "TZ": "America/St_Johns",
        "HOME": str(folder),
        # A child of the tests, which may be run from anywhere.
        "PYTHONPATH": str(Path(antenna_assets.__file__).parent.parent),
    }


def without_a_name(*command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command as a user id that has no name, home or shell in any list."""
    return subprocess.run(
        ["unshare", "--user", "--map-user=12345", "--map-group=12345", *command],
        env=environment,
        cwd=environment["HOME"],
        capture_output=True,
        text=True,
        timeout=400,
    )


@EACH_ENGINE
@pytest.mark.services
def test_row_40_the_stream_starts_in_strange_surroundings(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    send(settings, scenario(11), answers)
    done = without_a_name(
        *(sys.executable, "-m", "antenna_assets.cli", "stream", "--available-now"),
        environment=surroundings(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    ((rows, hours),) = connection.execute(
        "SELECT sum(rows)::int, array_agg(DISTINCT hour) FROM ledger.file WHERE kind = 'landed'"
    ).fetchall()
    assert rows > 0
    assert all(hour.minute == 0 for hour in hours)


ENGINE = """
import os
from antenna_assets.defs.resources import EngineResource
from pyspark.sql import SparkSession
engine = EngineResource(name="spark").start()
spark = engine._session()
assert spark.sql("SELECT lower('I') || upper('i') || format_number(1234.5, 1)").first()[0] == "iI1,234.5"
spark.range(3).write.parquet(os.environ["HOME"] + "/out")
print(spark.read.parquet(os.environ["HOME"] + "/out").count(), spark.sparkContext.master)
spark.stop()
"""


def test_row_40_the_spark_engine_starts_in_strange_surroundings(tmp_path: Path) -> None:
    done = without_a_name(sys.executable, "-c", ENGINE, environment=surroundings(tmp_path))
    assert (done.returncode, done.stdout) == (0, "3 local[*]\n"), done.stderr
