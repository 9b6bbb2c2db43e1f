"""Ways to ruin a certified lakehouse, each with random choices: what `antenna verify` must find.

Rows are changed as somebody with all rights could: triggers and foreign keys are off.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg import sql

from antenna_assets.domain.hours import HOUR
from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.ledger.chain import canonical, sha256_of
from antenna_assets.ledger.user_hours import make_user_days
from antenna_assets_tests.certified import FIRST, HOURS, World

Corruption = Callable[[psycopg.Connection, Path, random.Random], None]

CORRUPTIONS: dict[str, Corruption] = {}


def corruption(function: Corruption) -> Corruption:
    CORRUPTIONS[function.__name__] = function
    return function


def corrupt(world: World, connection: psycopg.Connection, name: str, seed: int) -> None:
    """Apply a corruption; it changes something for every seed."""
    connection.execute("SET session_replication_role = replica")
    CORRUPTIONS[name](connection, world.lake, random.Random(f"{name} {seed}"))
    connection.execute("SET session_replication_role = origin")


PLACE = "tableoid || ' ' || ctid::text"
"""A row's place: of two partitions both may have a row at a ctid."""


def change(connection: psycopg.Connection, statement: str, *values: object, **names: str) -> None:
    """Run a statement that must change something; `{place}` is `PLACE`."""
    identifiers = {name: sql.Identifier(*of.split(".")) for name, of in names.items()}
    query = sql.SQL(statement).format(**identifiers, place=sql.SQL(PLACE))
    assert connection.execute(query, values).rowcount > 0, statement


def a_row(connection: psycopg.Connection, rng: random.Random, table: str, where: str = "true") -> str:
    """The place of a random row."""
    query = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY tableoid, ctid").format(
        sql.SQL(PLACE), sql.Identifier(*table.split(".")), sql.SQL(where)
    )
    return rng.choice(connection.execute(query).fetchall())[0]


def a_table(rng: random.Random) -> tuple[str, str, str]:
    table = HOURLY_TABLES[rng.choice(sorted(HOURLY_TABLES))]
    return table.name, table.key, table.sum_column


# What people read.


@corruption
def row_lost(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    name, _, _ = a_table(rng)
    change(connection, "DELETE FROM {t} WHERE {place} = %s", a_row(connection, rng, name), t=name)


@corruption
def row_doubled(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    name, _, _ = a_table(rng)
    connection.execute(
        sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            sql.Identifier(name), sql.Identifier(f"{name}_pkey")
        )
    )
    row = a_row(connection, rng, name)
    change(connection, "INSERT INTO {t} SELECT * FROM {t} WHERE {place} = %s", row, t=name)


@corruption
def row_moved_to_another_hour(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    name, _, _ = a_table(rng)
    moved = rng.choice(["2 hours", "-20 hours", "3 minutes", "9 hours"])
    make_user_days(connection, [FIRST + number * HOUR for number in range(-24, 24)])
    row = a_row(connection, rng, name)
    change(connection, "UPDATE {t} SET date = date + %s::interval WHERE {place} = %s", moved, row, t=name)


@corruption
def bytes_moved_to_another_key(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    name, key, _ = a_table(rng)
    row = a_row(connection, rng, name)
    change(connection, "UPDATE {t} SET {k} = {k} || '0' WHERE {place} = %s", row, t=name, k=key)


@corruption
def value_changed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    name, _, sum_ = a_table(rng)
    row, by = a_row(connection, rng, name), rng.choice([-1, 1, 10**6])
    change(connection, "UPDATE {t} SET {s} = {s} + %s WHERE {place} = %s", by, row, t=name, s=sum_)


@corruption
def value_overflowed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    name, _, sum_ = a_table(rng)
    row, bits = a_row(connection, rng, name), rng.choice([-(2**63), -(2**32), 2**62])
    change(connection, "UPDATE {t} SET {s} = {s} + %s WHERE {place} = %s", bits, row, t=name, s=sum_)


@corruption
def row_added(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    change(
        connection,
        "INSERT INTO bytes_agg_app_1h VALUES (%s, %s, %s)",
        rng.choice([*HOURS, HOURS[0].replace(year=2020)]),
        f"app {rng.random()}",
        rng.randrange(2),
    )


@corruption
def wrong_user_over_quota(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    if rng.random() < 0.5:
        change(
            connection,
            "INSERT INTO users_over_quota_1h SELECT date, id || 'x', 'a@b', 1, sum_user_bytes"
            " FROM bytes_agg_user_1h WHERE {place} = %s",
            a_row(connection, rng, "bytes_agg_user_1h"),
        )
    else:
        row = a_row(connection, rng, "users_over_quota_1h")
        change(connection, "UPDATE users_over_quota_1h SET quota = quota - 1 WHERE {place} = %s", row)


@corruption
def email_changed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    new, row = (
        rng.choice([None, "", "paco@gmail.example"]),
        a_row(connection, rng, "bytes_agg_user_1h", "email IS NOT NULL"),
    )
    change(connection, "UPDATE bytes_agg_user_1h SET email = %s WHERE {place} = %s", new, row)


# Files.


def a_file(lake: Path, rng: random.Random, pattern: str) -> Path:
    return rng.choice(sorted(lake.glob(pattern)))


LANDED = f"landing/*/hour={FIRST:%Y%m%d%H}/*.parquet"
IN_LAKE = ("raw_parquet/**/*.parquet", "enriched_usage/**/*.parquet")


def any_file(lake: Path, rng: random.Random) -> Path:
    return a_file(lake, rng, rng.choice([LANDED, "landing/*/rejected/*.parquet", *IN_LAKE]))


@corruption
def file_deleted(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    any_file(lake, rng).unlink()


@corruption
def file_truncated(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    path = any_file(lake, rng)
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


@corruption
def files_swapped(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    one, other = rng.sample(sorted(lake.glob(rng.choice(["landing/*/hour=*/*.parquet", *IN_LAKE]))), 2)
    shutil.move(one, lake / "aside")
    shutil.move(other, one)
    shutil.move(lake / "aside", other)


@corruption
def file_replaced_by_a_copy(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    one, other = rng.sample(sorted(lake.glob(LANDED)), 2)
    shutil.copy(one, other)


@corruption
def bits_flipped(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    path = a_file(lake, rng, rng.choice(IN_LAKE))
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def rewrite(path: Path, change_: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change_(pq.ParquetFile(path).read()), path)


@corruption
def event_lost_from_a_file(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    rewrite(any_file(lake, rng), lambda table: table.slice(1))


@corruption
def event_doubled_in_a_file(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    rewrite(any_file(lake, rng), lambda table: pa.concat_tables([table, table.slice(0, 1)]))


@corruption
def event_replaced_by_its_neighbour(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    path = a_file(lake, rng, rng.choice([LANDED, *IN_LAKE]))
    rewrite(path, lambda table: pa.concat_tables([table.slice(1), table.slice(1, 1)]))


@corruption
def event_given_to_another_user(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    def given(table: pa.Table) -> pa.Table:
        ids = table["id"].to_pylist()
        ids[rng.randrange(len(ids))] = "somebody else"
        return table.set_column(table.schema.names.index("id"), table.schema.field("id"), pa.array(ids))

    rewrite(a_file(lake, rng, rng.choice([LANDED, *IN_LAKE])), given)


@corruption
def bytes_moved_between_events(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    def moved(table: pa.Table) -> pa.Table:
        values = table["bytes"].to_pylist()
        values[0], values[1] = values[0] + values[1] + 1, -1
        return table.set_column(
            table.schema.names.index("bytes"), table.schema.field("bytes"), pa.array(values, pa.int64())
        )

    rewrite(a_file(lake, rng, rng.choice([LANDED, *IN_LAKE])), moved)


@corruption
def rejected_for_another_reason(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    def other(table: pa.Table) -> pa.Table:
        field = table.schema.field("reason")
        reasons = pc.replace_substring(table["reason"], "not_json", "too_long")
        reasons = pc.replace_substring(reasons, "missing_field", "wrong_type")
        return table.set_column(table.schema.names.index("reason"), field, reasons)

    rewrite(a_file(lake, rng, "landing/*/rejected/*.parquet"), other)


@corruption
def lake_log_cut_off(_connection: psycopg.Connection, lake: Path, rng: random.Random) -> None:
    commits = sorted((lake / rng.choice(["raw_parquet", "enriched_usage"]) / "_delta_log").glob("*.json"))
    for commit in commits[rng.randrange(1, len(commits)) :]:
        commit.unlink()


# The ledger.


def add_to(connection: psycopg.Connection, rng: random.Random, table: str, where: str, *columns: str) -> None:
    """Change a number of a random row by a small amount."""
    column, by = rng.choice(columns), rng.choice([-1, 1])
    row = a_row(connection, rng, table, where)
    change(connection, "UPDATE {t} SET {c} = {c} + %s WHERE {place} = %s", by, row, t=table, c=column)


PUBLISHED_FILES = f"kind = 'landed' AND hour IN ('{HOURS[0]}', '{HOURS[1]}')"


@corruption
def ledger_file_changed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    add_to(connection, rng, "ledger.file", PUBLISHED_FILES, "rows", "bytes", "size", "batch")


@corruption
def ledger_file_lost(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    row = a_row(connection, rng, "ledger.file", f"kind = 'rejected' OR {PUBLISHED_FILES}")
    change(connection, "DELETE FROM ledger.file WHERE {place} = %s", row)


@corruption
def ledger_file_of_another_hour(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    row = a_row(connection, rng, "ledger.file", PUBLISHED_FILES)
    change(connection, "UPDATE ledger.file SET hour = hour + interval '1 hour' WHERE {place} = %s", row)


@corruption
def offsets_changed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    add_to(connection, rng, "ledger.batch_offset", "true", "from_offset", "until_offset", "partition")


@corruption
def offsets_lost(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    row = a_row(connection, rng, "ledger.batch_offset")
    change(connection, "DELETE FROM ledger.batch_offset WHERE {place} = %s", row)


@corruption
def batch_counter_changed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    row = a_row(connection, rng, "ledger.batch")
    column = rng.choice(["rows", "bytes", "quarantined", "late_rows"])
    change(connection, "UPDATE ledger.batch SET {c} = {c} + 1 WHERE {place} = %s", row, c=column)


@corruption
def rejections_changed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    row = a_row(connection, rng, "ledger.rejection")
    statement = rng.choice(
        [
            "UPDATE ledger.rejection SET rows = rows + 1 WHERE {place} = %s",
            "UPDATE ledger.rejection SET reason = 'too_long' WHERE {place} = %s",
            "DELETE FROM ledger.rejection WHERE {place} = %s",
        ]
    )
    change(connection, statement, row)


@corruption
def hour_or_generation_changed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    if rng.random() < 0.5:
        connection.execute("ALTER TABLE ledger.hour DROP CONSTRAINT hour_hour_check")
        hour = f"hour = '{rng.choice(HOURS)}'"
        add_to(connection, rng, "ledger.hour", hour, "rows", "bytes")
    else:
        add_to(connection, rng, "ledger.hour_generation", "true", "rows", "bytes", "up_to_batch")


@corruption
def generation_said_to_have_no_certificate(
    connection: psycopg.Connection, _lake: Path, rng: random.Random
) -> None:
    row = a_row(connection, rng, "ledger.hour_generation", "certified")
    change(connection, "UPDATE ledger.hour_generation SET certified = false WHERE {place} = %s", row)


@corruption
def publication_lost(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    table = rng.choice(["ledger.publication", "ledger.publication_head"])
    row = a_row(connection, rng, table)
    change(connection, "DELETE FROM {t} WHERE {place} = %s", row, t=table)


@corruption
def publication_changed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    if rng.random() < 0.3:
        add_to(connection, rng, "ledger.publication_head", "true", "generation")
        return
    columns = ("rows", "bytes", "users_version", "lake_version", "generation")
    where = "users_version IS NOT NULL AND lake_version IS NOT NULL"
    add_to(connection, rng, "ledger.publication", where, *columns)


@corruption
def users_of_a_publication_head_changed(
    connection: psycopg.Connection, _lake: Path, rng: random.Random
) -> None:
    add_to(connection, rng, "ledger.publication_head", "users_version IS NOT NULL", "users_version")


@corruption
def landing_of_a_generation_changed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    row = a_row(connection, rng, "ledger.generation_landing")
    change(
        connection,
        "UPDATE ledger.generation_landing SET content = jsonb_set(content, %s, '-1') WHERE {place} = %s",
        ["landed", rng.choice(["rows", "bytes", "files", "late_rows"])],
        row,
    )


# The certificates.


@corruption
def certificate_changed(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    row = a_row(connection, rng, "ledger.certificate")
    statement = rng.choice(
        [
            "UPDATE ledger.certificate SET text = replace(text, '\"generation\":1', '\"generation\":2') WHERE {place} = %s",
            "UPDATE ledger.certificate SET text = text || ' ' WHERE {place} = %s",
            "UPDATE ledger.certificate SET sha256 = md5(sha256) WHERE {place} = %s",
            "UPDATE ledger.certificate SET previous_sha256 = md5(sha256) WHERE {place} = %s",
            "UPDATE ledger.certificate SET generation = 2 WHERE {place} = %s",
            "UPDATE ledger.certificate SET hour = hour + interval '1 hour' WHERE {place} = %s",
            "UPDATE ledger.certificate SET text = '{{}}' WHERE {place} = %s",
        ]
    )
    change(connection, statement, row)


@corruption
def certificate_forged_with_its_hash(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    row = a_row(connection, rng, "ledger.certificate", f"hour <> '{HOURS[2]}'")
    query = sql.SQL("SELECT text FROM ledger.certificate WHERE {} = %s").format(sql.SQL(PLACE))
    ((text,),) = connection.execute(query, [row]).fetchall()
    before = text
    for name in ("rows", "bytes"):
        text = text.replace(f'"{name}":', f'"{name}":1')
    assert text != before
    values = [text, sha256_of(text), row]
    change(connection, "UPDATE ledger.certificate SET text = %s, sha256 = %s WHERE {place} = %s", *values)


@corruption
def chain_forged_to_its_end(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    """Every hash fits the next; only what is certified is not what is there."""
    import json

    name = rng.choice(["rows", "bytes", "late_rows"])
    previous = ""
    rows = connection.execute("SELECT number, text FROM ledger.certificate ORDER BY number").fetchall()
    for number, text in rows:
        signed = json.loads(text)
        if number == 1:
            signed["content"]["landed"][name] += 1
        signed["previous_sha256"] = previous
        forged = canonical(signed)
        values = [forged, previous, sha256_of(forged), number]
        change(
            connection,
            "UPDATE ledger.certificate SET text = %s, previous_sha256 = %s, sha256 = %s WHERE number = %s",
            *values,
        )
        previous = sha256_of(forged)
    change(connection, "UPDATE ledger.certificate_head SET sha256 = %s", previous)


@corruption
def certificate_lost(connection: psycopg.Connection, _lake: Path, rng: random.Random) -> None:
    number = rng.choice([1, 2, 3])
    change(connection, "DELETE FROM ledger.certificate WHERE number = %s", number)


@corruption
def last_certificate_lost_with_its_head(
    connection: psycopg.Connection, _lake: Path, _rng: random.Random
) -> None:
    change(connection, "DELETE FROM ledger.certificate WHERE number = 3")
    change(
        connection,
        "UPDATE ledger.certificate_head SET number = 2, sha256 ="
        " (SELECT sha256 FROM ledger.certificate WHERE number = 2)",
    )
