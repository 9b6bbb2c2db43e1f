"""proofs.md, row 37: PostgreSQL as others set it up: settings of a role, a database or an environment change no result, every
address is taken or refused with the form to use, and what cannot work is refused by `antenna up` in one sentence.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from antenna_assets import cli
from antenna_assets.clients import migrations
from antenna_assets.clients import postgres as database
from antenna_assets.clients.migrations import migrate, require_migrated
from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.clients.postgres_errors import DatabaseUnfit, error_line, is_retryable
from antenna_assets.clients.postgres_fitness import require_fit
from antenna_assets.defs.instance_storage import PooledPostgresStorage
from antenna_assets.domain.hours import HOUR, lake_partition
from antenna_assets.ledger.head import claim_topic
from antenna_assets.operations import doctor
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings
from antenna_assets.stack import services
from antenna_assets.storage.project_files import docker_folder, sql_folder
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, HOURS, Land, World, publish
from antenna_assets_tests.pooler import Pooler
from antenna_assets_tests.standby import standby_of

pytestmark = pytest.mark.services

SETTINGS = {
    "search_path": "tenant",
    "TimeZone": "Asia/Kolkata",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "row_security": "off",
    "jit": "on",
    "client_encoding": "LATIN1",
    "synchronous_commit": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "statement_timeout": "250ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "100ms",
    "transaction_timeout": "300ms",
    "idle_session_timeout": "300ms",
}
"""What a role or a database may be given, each of it against what this system depends on."""

ENVIRONMENT = {
    "PGTZ": "Asia/Kolkata",
    "PGDATESTYLE": "German",
    "PGCLIENTENCODING": "LATIN1",
    "PGGEQO": "off",
    "PGAPPNAME": "somebody",
    "PGOPTIONS": "-c search_path=tenant -c default_transaction_read_only=on -c statement_timeout=250",
}


ROLES = [
    "antenna_administrator",
    "antenna_alerts",
    "antenna_dashboards",
    "antenna_metrics",
    "antenna_publisher",
    "antenna_stream",
]


def given(connection: psycopg.Connection, kind: str, name: str) -> None:
    """Give a role or a database each of the settings."""
    for setting, text in SETTINGS.items():
        connection.execute(
            sql.SQL("ALTER {} {} SET {} = {}").format(
                sql.SQL(kind), sql.Identifier(name), sql.SQL(setting), sql.SQL(f"'{text}'")
            )
        )


def database_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def shown(connection: psycopg.Connection) -> dict[str, str]:
    return {name: connection.execute(f"SHOW {name}".encode()).fetchall()[0][0] for name in SETTINGS}


@pytest.fixture
def login(
    postgres_server: str,
    migrated_template: str,  # noqa: ARG001  # its migrations left the four roles
    empty_database: str,
) -> Iterator[Callable[..., str]]:
    """Makes a login with the options given that owns the empty database, and gives its address."""
    made: list[str] = []

    def make(options: str = "", *, owner: bool = True) -> str:
        name = f"login_{uuid4().hex[:8]}"
        with connect(postgres_server) as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'only-of-this-test' {}").format(
                    sql.Identifier(name), sql.SQL(options)
                )
            )
            made.append(name)
            if owner:
                connection.execute(
                    sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                        sql.Identifier(database_of(empty_database)), sql.Identifier(name)
                    )
                )
        place = urlsplit(empty_database).netloc.rpartition("@")[2]
        return urlunsplit(urlsplit(empty_database)._replace(netloc=f"{name}:only-of-this-test@{place}"))

    yield make
    for name in made:
        for place in (empty_database, postgres_server):
            with connect(place) as connection:
                connection.execute(
                    sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(name))
                )
                connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        with connect(postgres_server) as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_row_37_an_owner_with_every_hostile_setting_and_without_the_right_to_make_roles_migrates(
    login: Callable[..., str], monkeypatch: pytest.MonkeyPatch, postgres_server: str
) -> None:
    url = login()
    with connect(postgres_server) as connection:
        given(connection, "ROLE", urlsplit(url).username or "")
    for name, text in ENVIRONMENT.items():
        monkeypatch.setenv(name, text)
    with connect(url) as connection:
        connection.execute("CREATE SCHEMA tenant")
        assert migrate(connection) != []
        assert migrate(connection) == []
        require_migrated(connection)
        places = dict(
            connection.execute(
                "SELECT relnamespace::regnamespace::text, count(*) FROM pg_class"
                " WHERE relkind IN ('r', 'v') AND relowner = current_user::regrole GROUP BY 1"
            ).fetchall()
        )
    assert sorted(places) == ["ledger", "public"]
    assert places["public"] >= 21


def test_row_37_a_session_is_the_same_whatever_role_database_and_environment_say(
    postgres_server: str, empty_database: str, login: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(empty_database) as plain:
        usual = shown(plain)
    assert usual["search_path"] == "public"
    url = login()
    with connect(postgres_server) as connection:
        given(connection, "ROLE", urlsplit(url).username or "")
        given(connection, "DATABASE", database_of(url))
    for name, text in ENVIRONMENT.items():
        monkeypatch.setenv(name, text)
    with connect(url, application="antenna tried") as connection:
        assert shown(connection) == usual
        assert connection.execute("SHOW application_name").fetchone() == ("antenna tried",)
        # An instant comes back in its own hour, and as UTC.
        (instant,) = connection.execute("SELECT '2026-11-22 10:00Z'::timestamptz").fetchall()[0]
        assert instant.isoformat() == "2026-11-22T10:00:00+00:00"


def test_row_37_hours_are_published_and_verified_whatever_the_database_and_the_environment_say(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with certified_world.copy(tmp_path) as world:
        with connect(world.url) as connection:
            Land.on(connection, world.lake)({FIRST + HOUR: 40})
            given(connection, "DATABASE", database_of(world.url))
        for name, text in ENVIRONMENT.items():
            monkeypatch.setenv(name, text)
        publish(world, HOURS)
        with connect(world.url) as connection:
            found = verify(connection, Lake(str(world.lake)), kept_since=FIRST)
            assert (found.hours, found.differences, found.pending) == (3, [], {})
            rows = connection.execute("SELECT DISTINCT date FROM bytes_agg_user_1h ORDER BY 1").fetchall()
        assert [date for (date,) in rows] == HOURS[:2]
        assert Lake(str(world.lake)).hour("enriched_usage", FIRST + HOUR).generation == 2


def test_row_37_a_lake_partition_is_of_utc_in_whatever_zone_an_hour_comes() -> None:
    half_past = timezone(timedelta(hours=5, minutes=30))
    assert lake_partition(datetime(2026, 1, 1, 3, 30, tzinfo=half_past)) == {
        "year": 2025,
        "month": 12,
        "day": 31,
        "hour": 22,
    }
    assert lake_partition(datetime(2026, 1, 1, 3, tzinfo=UTC))["hour"] == 3


def test_row_37_dagsters_own_sessions_pin_the_same_and_keep_to_its_schema(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA tenant")
        given(connection, "DATABASE", database_of(postgres_url))
    for name, text in ENVIRONMENT.items():
        monkeypatch.setenv(name, text)
    storage = PooledPostgresStorage(postgres_url)
    parts = (storage.run_storage, storage.event_log_storage, storage.schedule_storage)
    try:
        for webserver in (False, True):
            for part in parts:
                if webserver:
                    part.optimize_for_webserver(statement_timeout=5000, pool_recycle=3600, max_overflow=5)
                with part._engine.connect() as dagster:  # type: ignore[attr-defined]
                    found = {
                        name: dagster.exec_driver_sql(f"SHOW {name}").scalar()
                        for name in ("TimeZone", "search_path", "DateStyle", "default_transaction_read_only")
                    }
                    assert found == {
                        "TimeZone": "UTC",
                        "search_path": "dagster",
                        "DateStyle": "ISO, MDY",
                        "default_transaction_read_only": "off",
                    }
                    timeout = dagster.exec_driver_sql("SHOW statement_timeout").scalar()
                    assert timeout == ("5s" if webserver else "0")
        assert storage.run_storage.get_runs() == []
    finally:
        for part in parts:
            part._engine.dispose()  # type: ignore[attr-defined]
    with connect(postgres_url) as connection:
        places = connection.execute(
            "SELECT DISTINCT relnamespace::regnamespace::text FROM pg_class WHERE relname IN ('runs', 'event_logs')"
        ).fetchall()
    assert places == [("dagster",)]


def test_row_37_objects_of_an_extension_or_another_owner_in_public_stop_no_migration(
    empty_database: str, login: Callable[..., str]
) -> None:
    url = login()
    with connect(empty_database) as administrator:
        administrator.execute("CREATE EXTENSION vector SCHEMA public")
        administrator.execute("CREATE VIEW public.pg_stat_statements AS SELECT 1 AS calls")
        administrator.execute("CREATE TABLE public.of_another_owner (secret text)")
        administrator.execute("REVOKE ALL ON public.of_another_owner FROM PUBLIC")
    with connect(url) as connection:
        assert migrate(connection) != []
    with connect(empty_database) as administrator:
        allowed = administrator.execute(
            "SELECT bool_or(has_table_privilege(name, 'public.of_another_owner', 'SELECT')) FROM unnest(%s::text[]) AS name",
            [ROLES],
        ).fetchone()
    assert allowed == (False,)


def test_row_37_a_database_that_is_closed_to_the_public_is_opened_to_the_roles(
    empty_database: str, login: Callable[..., str]
) -> None:
    name = sql.Identifier(database_of(empty_database))
    with connect(empty_database) as administrator:
        administrator.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        administrator.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    with connect(login()) as connection:
        migrate(connection)
        rows = connection.execute(
            "SELECT name, has_schema_privilege(name, 'public', 'USAGE'),"
            " has_database_privilege(name, current_database(), 'TEMPORARY') FROM unnest(%s::text[]) AS name ORDER BY 1",
            [ROLES],
        ).fetchall()
    assert rows == [
        ("antenna_administrator", True, True),
        ("antenna_alerts", True, False),
        ("antenna_dashboards", True, False),
        ("antenna_metrics", True, False),
        ("antenna_publisher", True, False),
        ("antenna_stream", True, True),
    ]


def test_row_37_missing_roles_are_named_with_the_statements_that_make_them(
    login: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(sql_folder(), tmp_path / "sql")
    later = "GRANT SELECT ON user_metadata\n    TO antenna_nobody,\n    antenna_no_one;"
    (tmp_path / "sql" / "migrations" / "0900_later.sql").write_text(later)
    monkeypatch.setattr(migrations, "sql_folder", lambda: tmp_path / "sql")
    with connect(login()) as connection:
        with pytest.raises(
            DatabaseUnfit,
            match="antenna_no_one, antenna_nobody are missing; ask an administrator of the server to run"
            " CREATE ROLE antenna_no_one NOLOGIN; CREATE ROLE antenna_nobody NOLOGIN; then run `antenna up` again",
        ):
            migrate(connection)
        assert connection.execute("SELECT to_regclass('schema_migration')").fetchone() == (None,)


def test_row_37_a_login_that_may_not_make_tables_is_told_what_it_lacks(login: Callable[..., str]) -> None:
    url = login(owner=False)
    with connect(url) as connection, pytest.raises(DatabaseUnfit, match="GRANT CREATE ON DATABASE"):
        migrate(connection)


def test_row_37_another_owners_tables_are_not_changed_but_the_owner_is_named(
    login: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    owner = login()
    stranger = login(owner=False)
    shutil.copytree(sql_folder(), tmp_path / "sql")
    with connect(owner) as connection:
        migrate(connection)
        connection.execute("GRANT SELECT ON schema_migration TO PUBLIC")
    (tmp_path / "sql" / "migrations" / "0900_later.sql").write_text("SELECT 1")
    monkeypatch.setattr(migrations, "sql_folder", lambda: tmp_path / "sql")
    with (
        connect(stranger) as connection,
        pytest.raises(DatabaseUnfit, match=f"run `antenna up` as {urlsplit(owner).username}"),
    ):
        migrate(connection)


def test_row_37_tables_that_a_search_path_had_put_elsewhere_are_named(empty_database: str) -> None:
    with connect(empty_database) as connection:
        migrate(connection)
        connection.execute("CREATE SCHEMA tenant")
        connection.execute("ALTER TABLE schema_migration SET SCHEMA tenant")
        with pytest.raises(
            DatabaseUnfit, match="expected the tables of this system in the schema public, found them in"
        ):
            migrate(connection)


def test_row_37_a_name_that_another_has_in_public_is_one_sentence(empty_database: str) -> None:
    with connect(empty_database) as connection:
        connection.execute("CREATE TABLE user_metadata (other text)")
        with pytest.raises(
            DatabaseError, match='0002_serving.sql cannot be applied: relation "user_metadata" already exists'
        ):
            migrate(connection)


def test_row_37_a_migration_that_was_mended_is_known_by_its_old_digest_and_ends_equal(
    postgres_url: str, empty_database: str, tmp_path: Path
) -> None:
    shutil.copytree(sql_folder(), tmp_path / "sql")
    old = Path(__file__).parent / "superseded" / "0013_roles.sql"
    shutil.copy(old, tmp_path / "sql" / "migrations")
    with pytest.MonkeyPatch.context() as older_program:
        older_program.setattr(migrations, "sql_folder", lambda: tmp_path / "sql")
        with connect(empty_database) as connection:
            migrate(connection)
    with connect(empty_database) as upgraded, connect(postgres_url) as new:
        assert migrate(upgraded) == []
        assert rights(upgraded) == rights(new)


def rights(connection: psycopg.Connection) -> list[tuple]:
    """All that is granted, on schemas, tables, views, sequences and columns."""
    return connection.execute(
        "SELECT nspname, '', '', nspacl::text FROM pg_namespace WHERE nspname IN ('public', 'ledger', 'dagster')"
        " UNION ALL SELECT nspname, relname, '', (SELECT array_agg(one::text ORDER BY one::text)::text FROM unnest(relacl) AS one)"
        "  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        "  WHERE nspname IN ('public', 'ledger', 'dagster')"
        " UNION ALL SELECT '', attrelid::regclass::text, attname, attacl::text FROM pg_attribute WHERE attacl IS NOT NULL"
        " ORDER BY 1, 2, 3"
    ).fetchall()


@contextmanager
def encoded(server: str, encoding: str) -> Iterator[str]:
    name = f"test_{uuid4().hex[:12]}"
    names = {"name": sql.Identifier(name), "encoding": sql.Literal(encoding)}
    with connect(server) as connection:
        connection.execute(
            sql.SQL(
                "CREATE DATABASE {name} ENCODING {encoding} LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
            ).format(**names)
        )
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        with connect(server) as connection:
            connection.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_row_37_a_database_in_another_encoding_is_refused_and_the_doctor_says_the_same(
    postgres_server: str, tmp_path: Path, encoding: str
) -> None:
    with encoded(postgres_server, encoding) as url:
        with (
            connect(url) as connection,
            pytest.raises(DatabaseUnfit, match=f"expected a database in UTF8, .* {encoding}"),
        ):
            migrate(connection)
        found = {one.name: one for one in doctor.findings(Settings(home=tmp_path, postgres_url=url))}
    assert not found["PostgreSQL"].ok
    assert found["PostgreSQL"].found.startswith("expected a database in UTF8")
    assert "ENCODING 'UTF8' TEMPLATE template0" in found["PostgreSQL"].fix


def test_row_37_an_older_server_is_refused(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antenna_assets.clients.postgres_fitness.OLDEST_VERSION", 99)
    with pytest.raises(DatabaseUnfit, match="expected PostgreSQL 99 or newer, found 18"):
        require_fit(connection)


def test_row_37_a_pooler_of_transactions_is_refused_by_every_part(postgres_url: str, tmp_path: Path) -> None:
    with Pooler(postgres_url, each_transaction=True) as pooler:
        with pytest.raises(
            DatabaseUnfit, match="expected a session of PostgreSQL for each client, found a pooler"
        ):
            connect(pooler.url)
        with pytest.raises(DatabaseUnfit, match="found a pooler that shares them"):
            PooledPostgresStorage(pooler.url)
        found = {one.name: one for one in doctor.findings(Settings(home=tmp_path, postgres_url=pooler.url))}
        # Who shares the pooler with us keeps its settings.
        with psycopg.connect(pooler.url, autocommit=True) as neighbour:
            assert neighbour.execute("SHOW search_path").fetchone() == ('"$user", public',)
    assert "found a pooler that shares them" in found["PostgreSQL"].found


def test_row_37_a_pooler_of_sessions_is_taken(postgres_url: str) -> None:
    with Pooler(postgres_url, each_transaction=False) as pooler, connect(pooler.url) as connection:
        require_migrated(connection)
        assert connection.execute("SHOW search_path").fetchone() == ("public",)
        assert PooledPostgresStorage(pooler.url).run_storage.get_runs() == []


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("08006", True),
        ("25006", True),
        ("25P03", True),
        ("25P04", True),
        ("40001", True),
        ("40P01", True),
        ("53100", True),
        ("53300", True),
        ("55P03", True),
        ("57014", True),
        ("57P01", True),
        ("57P03", True),
        ("58030", True),
        ("22003", False),
        ("23505", False),
        ("25P02", False),
        ("42501", False),
        ("42P01", False),
        ("54000", False),
        ("XX001", False),
    ],
)
def test_row_37_what_passes_by_itself_is_told_by_its_sqlstate(
    connection: psycopg.Connection, sqlstate: str, expected: bool
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$".encode())
    assert caught.value.sqlstate == sqlstate
    assert is_retryable(caught.value) is expected


def test_row_37_a_command_that_postgresql_cuts_off_ends_in_one_sentence_and_a_mistake_of_ours_does_not(
    connection: psycopg.Connection,
) -> None:
    with pytest.raises(psycopg.errors.AdminShutdown) as cut_off:
        connection.execute("DO $$ BEGIN RAISE 'ended by hand' USING ERRCODE = '57P01'; END $$")
    assert cli._expected(cut_off.value) == "ended by hand; committed work is kept: run the command again"
    with pytest.raises(psycopg.errors.UndefinedTable) as mistake:
        connection.execute("SELECT FROM of_nobody")
    assert cli._expected(mistake.value) is None


def forms(url: str, tmp_path: Path) -> dict[str, str]:
    """The same database in the forms that libpq takes."""
    found = conninfo_to_dict(url)
    host, port, user, name, password = (
        str(found[part]) for part in ("host", "port", "user", "dbname", "password")
    )
    (tmp_path / "services.conf").write_text(
        f"[antennas]\nhost={host}\nport={port}\ndbname={name}\nuser={user}\n"
    )
    (tmp_path / "passwords").write_text(f"{host}:{port}:{name}:{user}:{password}\n")
    (tmp_path / "passwords").chmod(0o600)
    login = f"{user}:{quote(password)}@"
    return {
        "postgres": f"postgres://{login}{host}:{port}/{name}",
        "postgresql": f"postgresql://{login}{host}:{port}/{name}",
        "words": make_conninfo(url),
        "words with options": make_conninfo(url, options="-c work_mem=5MB"),
        "query": f"postgresql:///{name}?host={host}&port={port}&user={user}&password={quote(password)}",
        "options": f"postgresql://{login}{host}:{port}/{name}?options=-c%20work_mem%3D5MB",
        "hosts": f"postgresql://{login}{host}:1,{host}:{port}/{name}",
        "hosts of words": f"host={host},{host} port=1,{port} user={user} dbname={name} password={password}",
        "service": f"service=antennas servicefile={tmp_path}/services.conf passfile={tmp_path}/passwords",
    }


FORMS = [
    "postgres", "postgresql", "words", "words with options", "query", "options", "hosts", "hosts of words", "service",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_row_37_every_address_that_libpq_takes_is_taken_by_every_part(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    address = forms(postgres_url, tmp_path)[form]
    if form == "service":
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services.conf"))
        address = f"service=antennas passfile={tmp_path}/passwords"
    # Commands, stream and runs.
    with connect(address) as connection:
        require_migrated(connection)
        assert connection.execute("SELECT current_database()").fetchone() == (database_of(postgres_url),)
    # Dagster's storage, by the variable that `antenna env` prints, and by the address itself.
    for given_to_dagster in (database.dagster_url(address), address):
        storage = PooledPostgresStorage(given_to_dagster)
        try:
            assert storage.run_storage.get_runs() == []
            with storage.run_storage._engine.connect() as dagster:  # type: ignore[attr-defined]
                assert dagster.exec_driver_sql("SHOW search_path").scalar() == "dagster"
                if "options" in form:
                    assert dagster.exec_driver_sql("SHOW work_mem").scalar() == "5MB"
                assert (conninfo_to_dict(postgres_url)["password"] or "") not in repr(dagster.engine)
        finally:
            for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
                part._engine.dispose()  # type: ignore[attr-defined]
    # The services' side, which only looks whether it is the embedded one.
    settings = Settings(home=tmp_path, postgres_url=address)
    assert services.external_postgres(settings) == address
    found = {one.name: one for one in doctor.findings(settings)}
    assert found["PostgreSQL"].ok, found["PostgreSQL"]
    # Superset, whose module stands alone.
    said = superset(address, "import psycopg2; c = psycopg2.connect(**connect_arguments(address)).cursor();"
                    " c.execute('SELECT current_database()'); print(c.fetchone()[0])")  # fmt: skip
    assert said.strip() == database_of(postgres_url)


def superset(address: str, code: str, **environment: str) -> str:
    """What a program says that has the module with which Superset enters."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; from usage_session import *; address = sys.argv[1]; {code}",
            address,
        ],
        env={**os.environ, "PYTHONPATH": str(docker_folder() / "superset"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_row_37_supersets_sessions_are_in_utc_and_read_whatever_database_and_environment_say(
    postgres_url: str,
) -> None:
    with connect(postgres_url) as connection:
        given(connection, "DATABASE", database_of(postgres_url))
    said = superset(
        postgres_url,
        "forget_environment(); import psycopg2; c = psycopg2.connect(**connect_arguments(address)).cursor();"
        " c.execute(\"SELECT string_agg(current_setting(n), '|') FROM unnest(array['TimeZone', 'DateStyle', 'search_path',"
        " 'default_transaction_read_only', 'transaction_isolation', 'statement_timeout', 'client_encoding']) AS n\");"
        " print(c.fetchone()[0])",
        **ENVIRONMENT,
    )
    assert said.strip() == "UTC|ISO, MDY|public|on|read committed|1min|UTF8"


def test_row_37_supersets_own_database_is_taken_in_its_forms_or_refused_with_the_form_to_use() -> None:
    said = superset("postgres://u:p@h/superset", "print(metadata_uri(address), metadata_uri('sqlite://'))")
    assert said.split() == ["postgresql://u:p@h/superset", "sqlite://"]
    said = superset(
        "host=h dbname=superset", "\ntry: metadata_uri(address)\nexcept SystemExit as e: print(e)"
    )
    assert "expected an address such as postgresql://user:password@host:5432/superset" in said


@pytest.mark.parametrize(
    "broken", ["mysql://me:top-secret@h/d", "postgresql://me:top-secret@[broken/d", "top-secret"]
)
def test_row_37_an_address_of_another_kind_is_refused_with_the_form_to_use_and_not_shown(
    tmp_path: Path, broken: str
) -> None:
    settings = Settings(home=tmp_path, postgres_url=broken)
    for enter in (
        lambda: connect(broken),
        lambda: services.external_postgres(settings),
        lambda: PooledPostgresStorage(broken),
        lambda: database.dagster_url(broken),
    ):
        with pytest.raises(DatabaseUnfit, match="expected an address such as postgresql://") as caught:
            enter()
        assert "top-secret" not in str(caught.value)
    assert "top-secret" not in str(list(doctor.findings(settings)))


def test_row_37_a_standby_is_refused_by_up_and_of_several_hosts_the_primary_is_taken(
    postgres_url: str, tmp_path: Path
) -> None:
    primary = conninfo_to_dict(postgres_url)
    with standby_of(postgres_url) as standby:
        with connect(standby.url) as connection:
            require_migrated(connection)
            with pytest.raises(DatabaseUnfit, match="expected PostgreSQL's primary, found a standby"):
                migrate(connection)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as refused:
                claim_topic(connection, "devices", "id")
        assert is_retryable(refused.value)
        assert error_line(refused.value).startswith("PostgreSQL is read-only: it is a standby, or became one")
        found = {one.name: one for one in doctor.findings(Settings(home=tmp_path, postgres_url=standby.url))}
        assert (
            found["PostgreSQL"].found == "expected PostgreSQL's primary, found a standby, which is read-only"
        )
        both = make_conninfo(
            postgres_url, host="127.0.0.1,127.0.0.1", port=f"{standby.port},{primary['port']}"
        )
        storage = PooledPostgresStorage(both)
        with connect(both) as connection, storage.run_storage._engine.connect() as dagster:  # type: ignore[attr-defined]
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
            assert dagster.exec_driver_sql("SELECT pg_is_in_recovery()").scalar() is False
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part._engine.dispose()  # type: ignore[attr-defined]
        standby.promote()
        with connect(standby.url) as connection:
            assert migrate(connection) == []
            claim_topic(connection, "devices", "id")


def test_row_37_the_statement_of_the_docs_moves_tables_from_where_a_search_path_had_put_them(
    postgres_url: str,
) -> None:
    text = (docker_folder().parent / "docs" / "upgrade.md").read_text(encoding="utf-8")
    (statement,) = (
        block.split("```")[0] for block in text.split("```sql\n")[1:] if "SET SCHEMA public" in block
    )
    with connect(postgres_url) as connection:
        connection.execute("CREATE SCHEMA tenant")
        connection.execute(statement.replace("tenant.%I SET SCHEMA public", "public.%I SET SCHEMA tenant")
                           .replace("'tenant'::regnamespace", "'public'::regnamespace").encode())  # fmt: skip
        with pytest.raises(DatabaseUnfit, match="found them in tenant"):
            migrate(connection)
        connection.execute(statement.encode())
        left = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'tenant'::regnamespace AND relkind IN ('r', 'v', 'S')"
        ).fetchone()
        assert left == (0,)
        assert migrate(connection) == []
