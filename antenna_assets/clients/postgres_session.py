"""What each of our sessions of PostgreSQL pins, whatever a role, a database, a server or an environment says, and how long
it may stand still.

Pinned by a statement once the session is open: PGTZ and its kind come after a session's own start-up options.
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
    # What is slow is not wrong: an hour of 20 million events takes its time.
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    # Each end sees after 25 s that the other has vanished, and not after the two hours of the system's default: a vanished
    # client's locks are free again, and nobody waits for an answer of a machine that is gone.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

# Stronger than `on`, as `remote_apply`, stays what it is.
_DURABLE = (
    "set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)"
)


@dataclass(frozen=True)
class Limits:
    """How long a session may stand still within a transaction, and wait for another's lock; zero is for ever.

    A process that was stopped keeps its locks: its machine answers for it. So PostgreSQL ends the session, and whoever
    waits goes on. A statement under way is never cut off.
    """

    idle_in_transaction: timedelta
    lock: timedelta = timedelta(0)


RUN = Limits(idle_in_transaction=timedelta(seconds=20))
"""Dagster's runs and sensor: between two statements of a transaction they do no work of more than a moment."""

STREAM = Limits(idle_in_transaction=timedelta(seconds=20), lock=timedelta(seconds=45))
"""The stream. It waits for longer than a frozen run may hold a lock; then it lets go, says so and begins again."""

PERSON = Limits(idle_in_transaction=timedelta(minutes=5))
"""Commands. Some of them write files while they hold the ledger's head."""


def pin(version: int, limits: Limits, *, only_of: int | None = None, keep: Sequence[str] = ()) -> str:
    """A SELECT that pins the settings of its session, and gives a row if it did.

    Args:
        version: of the server, as libpq tells it (180001).
        only_of: the number of the server's process as the client knows it. A pooler tells another one, of its own making:
            nothing is pinned then, for the session may be somebody else's in a moment.
        keep: settings that stay what the address made them.
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
