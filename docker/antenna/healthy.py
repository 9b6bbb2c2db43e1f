"""Liveness of the stream, or with the argument `watch` of the watch over alerts: it holds its lock in
PostgreSQL, also while it waits. Exit code 1 if it is down.
"""

import sys

from antenna_assets.clients.advisory_locks import ALERTS, STREAM, is_held
from antenna_assets.clients.postgres import connect
from antenna_assets.settings import load_settings
from antenna_assets.stack.services import postgres_url

lock = ALERTS if sys.argv[1:] == ["watch"] else STREAM
with connect(postgres_url(load_settings()), application="antenna health") as connection:
    sys.exit(not is_held(connection, lock))
