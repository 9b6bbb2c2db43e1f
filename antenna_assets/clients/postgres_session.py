"""Settings and timeouts of every session, whatever the role, database, server or environment sets.

They are set by a statement in the open session, as variables such as PGTZ override start-up options.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

_PINNED = {
    "search_path": "public",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "row_security": "on",
    "client_encoding": "UTF8",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # The queries here are short: PostgreSQL compiles those whose cost it overestimates, which takes longer
    # than to run them.
    "jit": "off",
    # Slow is not wrong: an hour of 20 million events takes long.
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    # A dead peer is detected after 25 s instead of the system's two hours: its locks are released, and a
    # client does not wait for a machine that is gone.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

# A stronger level than `on`, such as `remote_apply`, is kept.
_DURABLE = (
    "set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE "
    "current_setting('synchronous_commit') END, false)"
)


@dataclass(frozen=True)
class Limits:
    """How long a session may be idle in a transaction, and wait for a lock; zero: no limit.

    A process that is suspended keeps its locks, as its machine still answers keep-alives. PostgreSQL ends
    such a session, so that others continue. A running statement is never cancelled.
    """

    idle_in_transaction: timedelta
    lock: timedelta = timedelta(0)


RUN = Limits(idle_in_transaction=timedelta(seconds=20))
"""Dagster's runs and sensor: between two statements of a transaction they do only short work."""

STREAM = Limits(idle_in_transaction=timedelta(seconds=20), lock=timedelta(seconds=45))
"""The stream. It waits for a lock longer than a suspended run may hold it, then starts again."""

PERSON = Limits(idle_in_transaction=timedelta(minutes=5))
"""Commands; some of them write files while they hold the lock of the ledger's head."""


def pin(version: int, limits: Limits, *, only_of: int | None = None, keep: Sequence[str] = ()) -> str:
    """A SELECT that sets the settings of its session, and returns a row if it did.

    Args:
        version: the server's, as libpq gives it (180001).
        only_of: set nothing unless this is the backend's process id. The id that a pooler reports is
            invented, and its session may be another client's in a moment.
        keep: settings that stay as the address has them.
    """
    settings = {name: text for name, text in _PINNED.items() if name not in keep}
    settings["idle_in_transaction_session_timeout"] = _milliseconds(limits.idle_in_transaction)
    settings["lock_timeout"] = _milliseconds(limits.lock)
    if version >= 170000:
        settings["transaction_timeout"] = "0"
    calls = [f"set_config('{name}', '{text}', false)" for name, text in settings.items()]
    condition = "" if only_of is None else f" WHERE pg_backend_pid() = {only_of}"
    return f"SELECT {', '.join([*calls, _DURABLE])}{condition}"


def _milliseconds(time: timedelta) -> str:
    return str(time // timedelta(milliseconds=1))
