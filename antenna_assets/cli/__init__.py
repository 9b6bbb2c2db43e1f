"""The `antenna` command: arguments in, one clear error out.

What the commands do is elsewhere; here they are named, described and wired to the settings.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

from antenna_assets.cli.quarantine import app as quarantine_app
from antenna_assets.errors import AntennaError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hourly facts about mobile antennas: from Kafka to users over quota, every number with a proof.",
)
app.add_typer(quarantine_app, name="quarantine")
# Without emoji: `:fire:` in an app's name stays what it is.
out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def say(line: str) -> None:
    """One line of progress, with the time in UTC."""
    err.print(f"[dim]{datetime.now(UTC):%H:%M:%S}[/dim] {escape(line)}", soft_wrap=True)


def main() -> None:
    """Run the command line; an expected error is one sentence and exit code 1."""
    try:
        app()
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        err.print(f"[bold red]error:[/bold red] {escape(told)}", soft_wrap=True)
        sys.exit(1)


def _told(error: Exception) -> str | None:
    """The sentence of an expected error; of PostgreSQL's those that pass by themselves are."""
    if isinstance(error, AntennaError):
        return str(error)
    if "psycopg" not in sys.modules:
        return None
    import psycopg

    from antenna_assets.clients.postgres_errors import passes, told

    if isinstance(error, psycopg.Error) and passes(error):
        return f"{told(error)}; what was committed stays, run the command again"
    return None


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; a second Ctrl-C ends the process at once."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; the function it gives is told how much is done."""
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=err, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


def _hour(text: str) -> datetime:
    try:
        hour = datetime.fromisoformat(text)
    except ValueError:
        hour = None
    if hour is None or hour.tzinfo is None or (hour.minute, hour.second, hour.microsecond) != (0, 0, 0):
        raise typer.BadParameter(
            f"expected a full hour with a zone such as 2026-11-20T10:00:00Z, found {text!r}"
        )
    return hour.astimezone(UTC)


@app.command()
def up() -> None:
    """Start the embedded PostgreSQL and Kafka under the state directory, and migrate. Again is harmless."""
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.start import start

    services = start(load_settings(), say)
    out.print(f"Kafka       {services.kafka_bootstrap}")
    out.print("PostgreSQL  is up; `antenna env` prints its address and the other settings")


@app.command()
def down() -> None:
    """Stop the embedded PostgreSQL and Kafka. Their data stays."""
    from antenna_assets.settings import load_settings
    from antenna_assets.stack import services

    services.down(load_settings(), say)


@app.command()
def env() -> None:
    """Print the settings in force as lines for `eval "$(antenna env)"`. They hold the database's password."""
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.start import environment

    for name, value in environment(load_settings()).items():
        quoted = value.replace("'", "'\\''")
        sys.stdout.write(f"export {name}='{quoted}'\n")


@app.command()
def simulate(
    events: Annotated[int, typer.Option(min=0, help="Messages to send, of all kinds together.")],
    start: Annotated[str, typer.Option(help="First hour, as 2026-11-20T10:00:00Z.")],
    hours: Annotated[int, typer.Option(min=1, help="Hours to spread the events over.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same messages.")] = 0,
    rate: Annotated[
        float | None, typer.Option(min=1, help="Messages a second; as fast as possible if not given.")
    ] = None,
    late: Annotated[float, typer.Option(min=0, max=1, help="Share of events that arrive late.")] = 0.0,
    malformed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of messages that are no event.")
    ] = 0.0,
    future: Annotated[float, typer.Option(min=0, max=1, help="Share of events from the future.")] = 0.0,
    unknown_users: Annotated[
        float, typer.Option(min=0, max=1, help="Share of events of unknown users.")
    ] = 0.0,
    users: Annotated[int, typer.Option(min=1, help="Number of users.")] = 20,
    antennas: Annotated[int, typer.Option(min=1, help="Number of antennas.")] = 5,
    answers: Annotated[
        Path | None, typer.Option(help="Write the exact expected tables to this JSON file.")
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add to the answers that the file holds already.")
    ] = False,
) -> None:
    """Send simulated events to Kafka, every one of them acknowledged, and write the exact expected tables."""
    from antenna_assets.settings import load_settings
    from antenna_assets.simulator.run import simulate as run
    from antenna_assets.simulator.scenario import Scenario
    from antenna_assets.stack.services import kafka_bootstrap, kafka_config

    if append and answers is None:
        raise typer.BadParameter("--append needs --answers, the file to add to")
    settings = load_settings()
    scenario = Scenario(
        events=events,
        seed=seed,
        start=_hour(start),
        hours=hours,
        late=late,
        malformed=malformed,
        future=future,
        unknown_users=unknown_users,
        users=users,
        antennas=antennas,
    )
    with progress_bar("sending", events) as progress:
        sent = run(
            settings,
            scenario,
            bootstrap=kafka_bootstrap(settings),
            config=kafka_config(settings),
            answers=answers,
            append=append,
            rate=rate,
            progress=progress,
        )
    out.print(
        f"sent {sent.messages:,} messages, all acknowledged" + (f"; answers in {answers}" if answers else "")
    )


@app.command()
def stream(
    available_now: Annotated[
        bool,
        typer.Option(
            "--available-now", help="Read to Kafka's present end, close what can be closed, and end."
        ),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Where to begin a topic that was not read yet: earliest, latest, a time such as "
            "2026-11-20T10:00:00Z, or each partition as 0:1500,1:980. Recorded.",
        ),
    ] = None,
) -> None:
    """Run the streaming job: from Kafka to landed files, ledger and live tables. Stops on Ctrl-C and SIGTERM."""
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import services
    from antenna_assets.streaming.job import Stream

    settings = load_settings()
    found = services(settings)
    with stop_on_signals() as stop:
        job = Stream(
            settings,
            postgres_url=found.postgres_url,
            kafka_bootstrap=found.kafka_bootstrap,
            kafka_config=found.kafka_config,
            say=say,
            stop=stop,
            start=start,
        )
        try:
            if available_now:
                job.read_available()
            else:
                job.run()
        finally:
            job.close()
    say("stopped" if stop.is_set() else "everything is read")


@app.command()
def accept_loss(
    yes: Annotated[
        bool, typer.Option("--yes", help="Record the loss; without it, it is only shown.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "accepted by hand",
    skip: Annotated[
        tuple[int, int],
        typer.Option(
            metavar="PARTITION OFFSET",
            help="Record as lost the one record that the stream cannot read; it must be the next one to read.",
        ),
    ] = (-1, -1),
) -> None:
    """Show what Kafka itself lost before it was read, and with --yes record it, so that the stream can go on."""
    from antenna_assets.clients.kafka_broker import Broker
    from antenna_assets.clients.postgres import connect, require_migrated
    from antenna_assets.ledger.loss import accept, losses, step_over
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import services

    settings = load_settings()
    found = services(settings)
    broker = Broker(found.kafka_bootstrap, settings.topic, found.kafka_config)
    with connect(found.postgres_url, application="antenna accept-loss") as connection:
        require_migrated(connection)
        if skip != (-1, -1):
            out.print(f"{step_over(connection, broker, *skip, reason)}: recorded as lost", soft_wrap=True)
            return
        lost = accept(connection, broker, reason) if yes else losses(connection, broker)
    for loss in lost:
        out.print(str(loss), soft_wrap=True)
    if not lost:
        out.print("nothing is lost: Kafka holds every message that was not read")
    else:
        out.print(
            "recorded; the stream can go on"
            if yes
            else "not recorded: run it again with --yes to accept this"
        )


@app.command()
def reopen(
    first: Annotated[str, typer.Option("--from", help="First hour to open again, as 2026-11-22-10:00.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "reopened by hand",
) -> None:
    """Open the hours again that a wrong clock of PostgreSQL closed. Set the clock right first; no stream may run."""
    from antenna_assets.clients.postgres import connect, require_migrated
    from antenna_assets.domain.hours import parse_hour
    from antenna_assets.ledger.reopen import planned
    from antenna_assets.ledger.reopen import reopen as run
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    hour = parse_hour(first)
    with connect(postgres_url(settings), application="antenna reopen") as connection:
        require_migrated(connection)
        found = planned(connection, settings.topic, hour, settings.horizon)
        if not found:
            out.print(f"no hour from {first} on is closed")
            return
        out.print(str(found), soft_wrap=True)
        if not yes:
            typer.confirm("Open them again?", abort=True)
        done = run(connection, settings.topic, hour, horizon=settings.horizon, reason=reason)
    out.print(f"recorded: {done}; the stream can go on", soft_wrap=True)


@app.command()
def status() -> None:
    """Show lag, whether the stream runs or what it waits for, open and closed hours, dirty hours, generations, and quarantine by reason."""
    from antenna_assets.clients.kafka_broker import Broker
    from antenna_assets.clients.postgres import connect, require_migrated
    from antenna_assets.operations.status import tables
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import ServicesError, kafka_bootstrap, kafka_config, postgres_url

    settings = load_settings()
    broker, no_broker = None, ""
    with connect(postgres_url(settings)) as connection:
        require_migrated(connection)
        try:
            broker = Broker(kafka_bootstrap(settings), settings.topic, kafka_config(settings))
        except ServicesError as error:
            no_broker = str(error)
        for table in tables(connection, settings.topic, broker, no_broker):
            out.print(table)


@app.command()
def check(
    answers: Annotated[Path, typer.Option(help="File that `antenna simulate --answers` wrote.")],
) -> None:
    """Compare every table with the answers. Exit code 1, and the differences, if they differ."""
    from antenna_assets.settings import load_settings
    from antenna_assets.simulator.run import check as run
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    report = run(settings, answers, postgres_url=postgres_url(settings))
    if report is not None:
        out.print(report)
        raise typer.Exit(1)
    out.print("[green]all tables equal the answers[/green]")


@app.command()
def doctor() -> None:
    """Look at Java, jars, disk, ports and services, and say how to mend what is wrong."""
    from rich.table import Table

    from antenna_assets.operations.doctor import findings
    from antenna_assets.settings import load_settings

    table = Table("what", "", "found", "what to do")
    failed = 0
    for finding in findings(load_settings()):
        failed += not finding.ok
        mark = "[green]ok[/green]" if finding.ok else "[red]wrong[/red]"
        table.add_row(finding.name, mark, finding.found, "" if finding.ok else finding.fix)
    out.print(table)
    if failed:
        raise typer.Exit(1)


@app.command()
def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; show what would go.")] = False,
    every: Annotated[
        str | None,
        typer.Option(
            help="Sweep now and again after this time, as '1 day', until stopped. An error is told."
        ),
    ] = None,
) -> None:
    """Remove files that nothing refers to and what is past its retention. Safe while everything runs."""
    from antenna_assets.operations.sweep.run import report
    from antenna_assets.operations.sweep.run import sweep as run
    from antenna_assets.settings import duration, load_settings
    from antenna_assets.stack.services import postgres_url
    from antenna_assets.stack.start import dagster_home

    settings = load_settings()

    def once() -> None:
        amounts = run(
            postgres_url(settings),
            settings.lake_uri,
            dagster_home=dagster_home(settings),
            horizon=settings.horizon,
            dry_run=dry_run,
        )
        out.print(report(amounts, dry_run=dry_run))

    if every is None:
        once()
        return
    try:
        pause = duration(every).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if not pause:
        raise typer.BadParameter("expected a time such as '1 day', found none")
    with stop_on_signals() as stop:
        while not stop.is_set():
            try:
                once()
            except AntennaError as error:
                say(f"not swept, to be tried again after {every}: {error}")
            stop.wait(pause)


@app.command("adopt-lake")
def adopt_lake(
    yes: Annotated[
        bool, typer.Option("--yes", help="Bind them; without it, what is there is only shown.")
    ] = False,
) -> None:
    """Bind the lake at ANTENNA_LAKE to this database, after a move or a loss. Older copies of either then fit no more."""
    from antenna_assets.clients.postgres import connect, require_migrated
    from antenna_assets.ledger.lake_identity import adopt, evidence, found_id, known_lake
    from antenna_assets.ledger.stream_lock import only_stream
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    with connect(postgres_url(settings), application="antenna adopt-lake") as connection:
        require_migrated(connection)
        # Nothing lands meanwhile.
        with only_stream(connection):
            known, seen = known_lake(connection), evidence(connection, settings.lake_uri)
            out.print(
                f"the ledger's lake: {f'{known.id}, claimed at {known.place}' if known else 'none yet'}",
                soft_wrap=True,
            )
            try:
                found = found_id(settings.lake_uri) or "no id"
            except AntennaError as error:
                found = str(error)
            out.print(
                f"{settings.lake_uri}: {found}; {seen.found} of {seen.named} files of the ledger are there",
                soft_wrap=True,
            )
            if not yes:
                out.print("not bound: run it again with --yes to bind them")
                return
            adopt(connection, settings.lake_uri)
    out.print("[green]bound[/green]: `antenna verify` says what the lake lacks")


@app.command("rebuild-table")
def rebuild_table(
    table: Annotated[str, typer.Argument(help="raw_parquet or enriched_usage.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show what is torn or missing.")
    ] = False,
) -> None:
    """Bring back a table of the lake whose log was torn or lost, as the ledger knows it. Exit code 1 if an hour stays away."""
    from antenna_assets.clients.postgres import connect, require_migrated
    from antenna_assets.domain.schema import LAKE_TABLES
    from antenna_assets.operations.rebuild import lines, rebuild
    from antenna_assets.publishing.lake import Lake
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    if table not in LAKE_TABLES:
        raise typer.BadParameter(f"expected {' or '.join(LAKE_TABLES)}, found {table!r}")
    settings = load_settings()
    with connect(postgres_url(settings), application="antenna rebuild-table") as connection:
        require_migrated(connection)
        done = rebuild(connection, Lake(settings.lake_uri), table, dry_run=dry_run)
    for line in lines(table, done, dry_run=dry_run):
        out.print(line, soft_wrap=True)
    if done.to_run or done.lost:
        raise typer.Exit(1)


@app.command()
def certificate(
    hour: Annotated[str, typer.Argument(help="Hour in UTC, as 2026-11-22-10:00.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the very text that the SHA-256 is of.")
    ] = False,
) -> None:
    """Print the newest certificate of an hour: offsets, rows and bytes landed, what is published, and the hashes."""
    from antenna_assets.cli.certificate_tables import lines
    from antenna_assets.clients.postgres import connect, require_migrated
    from antenna_assets.domain.hours import parse_hour
    from antenna_assets.ledger.certificate import require_certificate
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    wanted = parse_hour(hour)
    with connect(postgres_url(load_settings())) as connection:
        require_migrated(connection)
        found = require_certificate(connection, wanted)
    if as_json:
        sys.stdout.write(found.text + "\n")
        return
    for line in lines(found):
        out.print(line)


@app.command()
def anchor(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="File to append the line to, best on another machine; without it, it is printed."
        ),
    ] = None,
) -> None:
    """Write down the newest certificate's hash outside the database, whose owner could write the whole chain anew."""
    from antenna_assets.clients.postgres import connect, require_migrated
    from antenna_assets.ledger.anchors import anchor_of, append_anchor
    from antenna_assets.ledger.certificate import newest_of_all
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    with connect(postgres_url(load_settings()), application="antenna anchor") as connection:
        require_migrated(connection)
        newest = newest_of_all(connection)
    written = anchor_of(newest) if file is None else append_anchor(file, newest)
    if written is None:
        out.print(f"certificate {newest.number} is anchored already")
    else:
        sys.stdout.write(written.line + "\n")


@app.command()
def verify(
    first: Annotated[
        str | None, typer.Option("--from", help="First hour, as 2026-11-22-10:00; the oldest if not given.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="Last hour, this one included; the newest if not given.")
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            help="Hashes kept outside the database: a file of `antenna anchor`, or a log with them."
        ),
    ] = None,
) -> None:
    """Recompute what the certificates claim from the files and tables. Exit code 1, and the differences, if there are any."""
    from antenna_assets.cli.certificate_tables import differences_table, pending_table
    from antenna_assets.clients.clock import database_now
    from antenna_assets.clients.postgres import connect, require_migrated
    from antenna_assets.domain.hours import HOUR, parse_hour
    from antenna_assets.ledger.anchors import read_anchors
    from antenna_assets.publishing.lake import Lake
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url
    from antenna_assets.verify.run import verify as run

    settings = load_settings()
    begin = parse_hour(first) if first is not None else None
    end = parse_hour(last) + HOUR if last is not None else None
    anchored = read_anchors(anchors) if anchors is not None else []
    with (
        connect(postgres_url(settings)) as connection,
        Progress(
            *Progress.get_default_columns(),
            MofNCompleteColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        ) as bar,
    ):
        require_migrated(connection)
        kept_since = database_now(connection) - settings.horizon
        task = bar.add_task("verifying", total=None)
        found = run(
            connection,
            Lake(settings.lake_uri),
            first=begin,
            end=end,
            kept_since=kept_since,
            anchors=anchored,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if found.pending:
        out.print(pending_table(found.pending))
    if found.not_recomputed:
        out.print(
            f"{len(found.not_recomputed):,} hours are past the horizon and have no landed files any more: their "
            "published rows were verified"
        )
    held = f", held against {len(anchored):,} anchors" if anchored else ""
    out.print(f"verified {found.hours:,} hours and {found.certificates:,} certificates{held}")
    if found.differences:
        out.print(differences_table(found.differences))
        raise typer.Exit(1)
    out.print("[green]everything is as certified[/green]")


@app.command()
def backfill(
    first: Annotated[str, typer.Option("--from", help="First hour, as 2026-11-22-10:00.")],
    last: Annotated[
        str | None, typer.Option("--to", help="Last hour, this one included; one hour if not given.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Change nothing; show which rows and over-quota users would change."),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it to its end. Exit code 1 if an hour is not published.")
    ] = False,
) -> None:
    """Publish closed hours again, with Dagster: all that landed for them, and the users as they are now."""
    from antenna_assets.cli.backfill import backfill as run

    run(out, progress_bar, first=first, last=last, dry_run=dry_run, wait=wait)


@app.command("forget-user")
def forget_user(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; show where the id is.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask: nothing leads back from the pseudonym.")
    ] = False,
    drop_unjudged: Annotated[
        bool,
        typer.Option(
            "--drop-unjudged",
            help="Drop the rejected messages of which nobody can say whether they name the user; their rows and reasons stay.",
        ),
    ] = False,
) -> None:
    """Put a random pseudonym in the place of a user, in every table and file; sums stay. See docs/forgetting.md."""
    from antenna_assets.clients.postgres import connect, require_migrated
    from antenna_assets.operations.forget.identity import is_unfinished
    from antenna_assets.operations.forget.run import forget, places, places_table, unjudged_table
    from antenna_assets.publishing.lake import Lake
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    lake = Lake(settings.lake_uri)
    with connect(postgres_url(settings), application="antenna forget-user") as connection:
        require_migrated(connection)
        found = places(connection, lake, user)
        unjudged, done = found.unjudged, "the id is nowhere"
        if found:
            out.print(places_table(found))
        if unjudged:
            out.print(unjudged_table(unjudged))
        if dry_run:
            if not found:
                out.print(_sentence(done, unjudged), soft_wrap=True)
            return
        if found or is_unfinished(connection, user) or (drop_unjudged and unjudged):
            if not yes:
                typer.confirm("Forget this user? It cannot be undone.", abort=True)
            forgotten = forget(
                connection,
                lake,
                user,
                say=say,
                drop_unjudged=drop_unjudged,
                spill_folder=settings.home / "spill" / "forget",
            )
            unjudged = forgotten.unjudged
            dropped = f"; {forgotten.dropped:,} rejected messages were dropped" if forgotten.dropped else ""
            done = f"[green]forgotten[/green]: {forgotten.pseudonym} is in its place{dropped}, and the id is nowhere any more"
    out.print(_sentence(done, unjudged), soft_wrap=True)
    if unjudged:
        raise typer.Exit(1)


def _sentence(done: str, unjudged: Sized) -> str:
    """What can be said of an id: nothing, of messages that cannot be judged."""
    if not unjudged:
        return done
    return (
        f"{done}, as far as can be judged: {len(unjudged):,} rejected messages may still name the user;"
        " --drop-unjudged drops them, and `antenna quarantine show` shows one"
    )


@app.command()
def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port to listen on.")] = 9464,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. What is told names no user, but anyone who can reach it may ask."
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve lag, hours, rejected messages and more for Prometheus, until stopped."""
    from antenna_assets.clients.kafka_broker import Broker
    from antenna_assets.operations.metrics import serve
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import kafka_bootstrap, kafka_config, postgres_url

    settings = load_settings()
    with stop_on_signals() as stop:
        end = serve(
            postgres_url(settings),
            lambda: Broker(kafka_bootstrap(settings), settings.topic, kafka_config(settings)),
            host=host,
            port=port,
        )
        say(f"metrics on http://{host}:{port}/metrics")
        stop.wait()
        end()


@app.command()
def report(
    hour: Annotated[str | None, typer.Option(help="An hour, as 2026-11-22-10:00.")] = None,
    day: Annotated[
        str | None,
        typer.Option(help="A day in UTC, as 2026-11-22. Default: that of the newest published hour."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The page to write. Default: antenna-<hour or day>.html.")
    ] = None,
) -> None:
    """Write one page on an hour or a day: usage, quotas and how far to trust it. It needs nothing beside it."""
    from antenna_assets.clients.postgres import connect
    from antenna_assets.operations.report.write import write_report
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    with connect(postgres_url(load_settings()), application="antenna report") as connection:
        path = write_report(connection, hour=hour, day=day, output=output)
    out.print(f"written: {path}", soft_wrap=True)


@app.command()
def demo(
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Stay up: live events, the stream, and Dagster's UI on 127.0.0.1:3000."),
    ] = False,
) -> None:
    """Run everything from nothing to a checked result: two hours of events through Kafka, Spark and Dagster."""
    from antenna_assets.cli.demo import run_demo, serve_demo
    from antenna_assets.settings import load_settings

    settings = load_settings()
    run_demo(settings, out=out, say=say)
    if serve:
        with stop_on_signals() as stop:
            serve_demo(settings, out=out, say=say, stop=stop)


@app.command()
def dashboards(
    write: Annotated[
        Path | None,
        typer.Option(
            help="Do not start it: write the dashboards as they are in Superset now into this folder."
        ),
    ] = None,
) -> None:
    """Start Superset on 127.0.0.1 with the dashboards of docker/superset, and stop it with Ctrl-C.

    `make dashboards` installs Superset first. The address and a password are printed.
    """
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.start import start
    from antenna_assets.stack.superset import superset, write_dashboards

    settings = load_settings()
    if write is not None:
        write_dashboards(settings, write)
        return
    found = start(settings, say)
    with stop_on_signals() as stop, superset(settings, found.postgres_url, say=say) as on:
        out.print(f"usage and quota        {on.url}/superset/dashboard/usage-and-quota/", soft_wrap=True)
        out.print(f"trust in the pipeline  {on.url}/superset/dashboard/trust/", soft_wrap=True)
        out.print(f"user {on.user}, password {on.password} (Ctrl-C stops it)", soft_wrap=True)
        stop.wait()


if __name__ == "__main__":
    main()
