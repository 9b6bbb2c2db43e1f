"""Whether the stream lives: it holds its lock in PostgreSQL, also while it waits. Exit code 1 if it does not."""

import sys

from antenna_assets.database import connect
from antenna_assets.settings import load_settings
from antenna_assets.stack.services import postgres_url
from antenna_assets.streaming.lock import stream_runs

with connect(postgres_url(load_settings()), application="antenna health") as connection:
    sys.exit(not stream_runs(connection))
