"""`antenna metrics`: the Prometheus exporter for the ledger and Kafka's lag.

It is a process of its own, so that it answers when the stream does not. Alert rules are in
`docker/prometheus/alerts.yml`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from threading import Lock

import psycopg
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from antenna_assets.clients.kafka_broker import Broker
from antenna_assets.clients.migrations import require_migrated
from antenna_assets.clients.postgres import DatabaseError, connect, snapshot
from antenna_assets.domain.closing_rule import NO_BACKLOG
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.blocked import blocked_by
from antenna_assets.ledger.failing import read_failing_hours
from antenna_assets.ledger.hours_to_publish import LEFT_OUT, read_left_out, unpublished
from antenna_assets.ledger.progress import backlog_of, next_to_read
from antenna_assets.ledger.stream_lock import stream_runs
from antenna_assets.operations.alerts.gauges import alert_metrics, notice_metrics
from antenna_assets.operations.periods import period_metrics

HOURS_COUNTED = 1_000
"""Hours to publish are counted up to this number."""

_TOTALS = ("batches", "rows", "bytes", "quarantined", "late_rows")


class MetricsError(AntennaError):
    """The metrics cannot be served; the message says what to do."""


def serve(
    postgres_url: str, broker: Callable[[], Broker], *, host: str, port: int, say: Callable[[str], None]
) -> Callable[[], None]:
    """Serve `http://host:port/metrics` from a thread; returns the function that stops it.

    Raises:
        MetricsError: the port is taken, or the address is not one of this machine's.
    """
    registry = CollectorRegistry()
    registry.register(LedgerCollector(postgres_url, broker, say))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise MetricsError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port or --host"
        ) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


class LedgerCollector(Collector):
    """Reads the ledger and Kafka at each scrape. A source that fails is 0 in `antenna_source_up`; the other
    is served.

    Args:
        broker: connects to Kafka; its errors count as Kafka's.
        say: is given a line when a source fails, fails for another reason, or answers again.
    """

    def __init__(
        self,
        postgres_url: str,
        broker: Callable[[], Broker],
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._postgres_url = postgres_url
        self._make_broker = broker
        self._say = say
        self._broker: Broker | None = None
        self._lock = Lock()
        self._failures: dict[str, str] = {}
        # The ledger only grows: each scrape adds the batches after the last one that was counted.
        self._counted = 0
        self._totals: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()

    def describe(self) -> list[Metric]:
        """Return nothing: names that are known before the first scrape would need the services at the
        start."""
        return []

    def collect(self) -> list[Metric]:
        """Return all metrics as of now."""
        up = GaugeMetricFamily(
            "antenna_source_up", "Whether PostgreSQL and Kafka answered.", labels=["source"]
        )
        metrics: list[Metric] = [up]
        with self._lock:
            try:
                with connect(self._postgres_url, application="antenna metrics") as connection:
                    require_migrated(connection)
                    with snapshot(connection):
                        metrics += [*self._counters(connection), *_stream(connection)]
                        metrics += [
                            *_hours(connection),
                            *period_metrics(connection),
                            *alert_metrics(connection),
                            *notice_metrics(connection),
                        ]
                    lag = [*self._lag(connection)]
            except (DatabaseError, psycopg.Error) as error:
                self._record("postgresql", error)
                up.add_metric(["postgresql"], 0)
                return metrics
            self._record("postgresql", None)
        up.add_metric(["postgresql"], 1)
        up.add_metric(["kafka"], bool(lag))
        return [*metrics, *lag]

    def _record(self, source: str, error: Exception | None) -> None:
        """Say what changed of a source since the last scrape: that it fails and why, or that it answers
        again."""
        reason = "" if error is None else (str(error).strip().splitlines() or [type(error).__name__])[0]
        if reason == self._failures.get(source, ""):
            return
        self._failures[source] = reason
        self._say(f"{source} cannot be read: {reason}" if reason else f"{source} answers again")

    def _counters(self, connection: psycopg.Connection) -> Iterator[Metric]:
        newest, *sums = connection.execute(
            "SELECT coalesce(max(batch), %(counted)s), coalesce(sum(merged), 0)::bigint,"
            " coalesce(sum(rows), 0)::bigint, coalesce(sum(bytes), 0), coalesce(sum(quarantined), 0)::bigint,"
            " coalesce(sum(late_rows), 0)::bigint FROM ledger.batch WHERE batch > %(counted)s",
            {"counted": self._counted},
        ).fetchall()[0]
        rejected = connection.execute(
            "SELECT reason, sum(rows)::bigint FROM ledger.rejection WHERE batch > %s AND batch <= %s"
            " GROUP BY reason",
            [self._counted, newest],
        ).fetchall()
        self._totals.update(dict(zip(_TOTALS, map(int, sums), strict=True)))
        self._rejected.update(dict(rejected))
        self._counted = newest
        yield _counter(
            "antenna_batches",
            "Batches committed: of the stream, replays and accepted losses.",
            self._totals["batches"],
        )
        yield _counter("antenna_landed_rows", "Events that landed.", self._totals["rows"])
        yield _counter("antenna_landed_bytes", "Bytes that these events report.", self._totals["bytes"])
        yield _counter(
            "antenna_late_rows", "Events that came after their hour had closed.", self._totals["late_rows"]
        )
        by_reason = CounterMetricFamily(
            "antenna_rejected_messages",
            "Messages that were rejected, also those replayed since.",
            labels=["reason"],
        )
        for reason, count in sorted(self._rejected.items()):
            by_reason.add_metric([reason], count)
        yield by_reason

    def _lag(self, connection: psycopg.Connection) -> Iterator[Metric]:
        """Yield nothing if Kafka does not answer."""
        try:
            self._broker = self._broker or self._make_broker()
            topic = self._broker.describe()
            done = next_to_read(connection, self._broker, topic)
            left = backlog_of(self._broker, topic, done)
        except AntennaError as error:
            # The next scrape resolves the address again, which may have changed.
            self._broker = None
            self._record("kafka", error)
            return
        self._record("kafka", None)
        lag = GaugeMetricFamily(
            "antenna_lag_messages", "Messages that are not committed yet.", labels=["partition"]
        )
        held = GaugeMetricFamily(
            "antenna_held_messages",
            "Messages in or behind open transactions, which no consumer can read yet; included in the lag.",
            labels=["partition"],
        )
        for partition in sorted(done):
            one = left.get(partition, NO_BACKLOG)
            lag.add_metric([str(partition)], one.end - one.offset)
            held.add_metric([str(partition)], one.held)
        yield lag
        yield held


def _stream(connection: psycopg.Connection) -> Iterator[Metric]:
    yield _gauge("antenna_stream_runs", "1 if a stream holds this ledger.", stream_runs(connection))
    waiting, watermark, held, wrong = connection.execute(
        "SELECT bool_or(waiting_for IS NOT NULL)::int, extract(epoch FROM min(low_watermark))::float8,"
        " extract(epoch FROM clock_timestamp() - min(held_since))::float8,"
        " bool_or(host_clock IS NOT NULL)::int FROM ledger.head"
    ).fetchall()[0]
    yield _gauge(
        "antenna_stream_waiting",
        "1 if the stream waits for Kafka, PostgreSQL, another session's lock or a disk.",
        int(bool(waiting) or blocked_by(connection) is not None),
    )
    yield _gauge(
        "antenna_closing_held_seconds",
        "How long an hour that has ended is kept open by messages that are not read; 0 if none is.",
        held or 0,
    )
    yield _gauge(
        "antenna_stream_clock_wrong",
        "1 if the own clock of the stream's host differs from PostgreSQL's by more than half a minute.",
        wrong or 0,
    )
    if watermark is not None:
        yield _gauge("antenna_low_watermark_timestamp_seconds", "Events before it were read.", watermark)
    batch = connection.execute(
        "SELECT extract(epoch FROM committed_at)::float8, extract(epoch FROM committed_at - clock)::float8"
        " FROM ledger.batch WHERE kind = 'stream' ORDER BY batch DESC LIMIT 1"
    ).fetchone()
    yield from _gauges(
        batch,
        ("antenna_last_commit_timestamp_seconds", "When the newest micro-batch was committed."),
        ("antenna_batch_seconds", "How long the newest micro-batch took, landing to commit."),
    )


def _hours(connection: psycopg.Connection) -> Iterator[Metric]:
    (open_,) = connection.execute("SELECT count(*) FROM ledger.hour WHERE closed_at IS NULL").fetchall()[0]
    yield _gauge("antenna_open_hours", "Hours that are not closed yet.", open_)
    todo, late, oldest = unpublished(connection, limit=HOURS_COUNTED)
    yield _gauge(
        "antenna_hours_to_publish", f"Closed hours to publish, counted up to {HOURS_COUNTED:,}.", todo
    )
    yield _gauge(
        "antenna_late_hours", "Those of them that were published before and wait with late rows.", late
    )
    if oldest is not None:
        yield _gauge(
            "antenna_oldest_hour_to_publish_end_timestamp_seconds",
            "When the oldest of them ended, or the late rows of a published one came.",
            oldest,
        )
    left_out = GaugeMetricFamily(
        "antenna_left_out_hours", "Closed hours that cannot be asked for.", labels=["reason"]
    )
    counts = {one.reason: one.count for one in read_left_out(connection)}
    for reason in LEFT_OUT:
        left_out.add_metric([reason], counts.get(reason, 0))
    yield left_out
    failing = read_failing_hours(connection)
    by_state = GaugeMetricFamily("antenna_failing_hours", "Hours whose runs failed.", labels=["stuck"])
    stuck = sum(one.stuck for one in failing)
    by_state.add_metric(["no"], len(failing) - stuck)
    by_state.add_metric(["yes"], stuck)
    yield by_state
    certificate = connection.execute(
        "SELECT extract(epoch FROM issued_at)::float8, extract(epoch FROM issued_at - hour)::float8 - 3600"
        " FROM ledger.certificate ORDER BY number DESC LIMIT 1"
    ).fetchone()
    yield from _gauges(
        certificate,
        ("antenna_last_certificate_timestamp_seconds", "When the newest was issued."),
        ("antenna_certificate_delay_seconds", "From its hour's end to the newest certificate."),
    )


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=value)


def _gauges(row: tuple | None, *named: tuple[str, str]) -> Iterator[Metric]:
    """A gauge for each column of a row, by its name and help; none without a row."""
    for (name, help), value in zip(named, row or (), strict=row is not None):
        yield _gauge(name, help, value)


def _counter(name: str, help: str, value: int) -> Metric:
    return CounterMetricFamily(name, help, value=value)
