"""`python -m antenna_assets_tests.golden send | compare`: the golden messages to Kafka, and the tables against the golden ones.

A golden table is a CSV file with the rows of its hour in the order of its key. Nothing is made here: whoever changes a
result on purpose writes the file.
"""

import csv
import io
import sys
from datetime import datetime
from difflib import unified_diff
from pathlib import Path

import psycopg
from psycopg import sql

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import parse_hour
from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.settings import load_settings
from antenna_assets.stack.kafka_topic import ensure_topic
from antenna_assets.stack.services import services

FOLDER = Path(__file__).parent
HOUR = "2026-11-20-10:00"
PARTITIONS = 4


def main(arguments: list[str]) -> int:
    """Do what is asked for; exit code 1 if a table differs."""
    match arguments:
        case ["send"]:
            send()
            return 0
        case ["compare"]:
            return compare()
    sys.stderr.write("expected `send` or `compare`\n")
    return 2


def send() -> None:
    """Each line of the file to Kafka, in turns to the partitions, acknowledged."""
    from confluent_kafka import Producer

    settings = load_settings()
    bootstrap = services(settings).kafka_bootstrap
    ensure_topic(bootstrap, settings.topic, PARTITIONS)
    failures: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "on_delivery": lambda error, _message: failures.append(str(error)) if error else None,
        }
    )
    lines = (FOLDER / "messages.jsonl").read_bytes().splitlines()
    for number, line in enumerate(lines):
        producer.produce(settings.topic, line, partition=number % PARTITIONS)
    if producer.flush(60) or failures:
        raise SystemExit(f"Kafka did not take every message: {failures[:3]}")
    print(f"sent {len(lines)} messages")  # noqa: T201


def compare() -> int:
    """Print the differences of all tables; 1 if there are some."""
    hour, differences = parse_hour(HOUR), []
    with connect(services(load_settings()).postgres_url) as connection:
        for table in HOURLY_TABLES:
            golden = (FOLDER / f"{table}.csv").read_text(encoding="utf-8")
            differences += unified_diff(
                golden.splitlines(),
                rows(connection, table, hour).splitlines(),
                f"golden {table}",
                table,
                lineterm="",
            )
    print("\n".join(differences) or "all tables equal the golden ones")  # noqa: T201
    return int(bool(differences))


def rows(connection: psycopg.Connection, table: str, hour: datetime) -> str:
    """The hour's rows of a table as CSV, without `date`."""
    columns = HOURLY_TABLES[table].columns.names
    found = connection.execute(
        sql.SQL("SELECT {} FROM {} WHERE date = %s ORDER BY {}").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.Identifier(table),
            sql.SQL('{} COLLATE "C"').format(sql.Identifier(HOURLY_TABLES[table].key)),
        ),
        [hour],
    ).fetchall()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(found)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
