"""Liveness of the stream: it holds its lock in PostgreSQL, also while it waits. Exit code 1 if it is down."""

import sys

from antenna_assets.clients.postgres import connect
from antenna_assets.ledger.stream_lock import stream_runs
from antenna_assets.settings import load_settings
from antenna_assets.stack.services import postgres_url

with connect(postgres_url(load_settings()), application="antenna health") as connection:
    sys.exit(not stream_runs(connection))
