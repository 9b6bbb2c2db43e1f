"""Ours: `antenna stream --available-now`, then the figures of the ledger."""

import json
import sys

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect
from antenna_assets.settings import load_settings


def main() -> None:
    """Read the topic of the settings to its end."""
    app(["stream", "--available-now"], standalone_mode=False)
    with connect(load_settings().postgres_url or "") as connection:
        batches = connection.execute(
            "SELECT committed_at, rows + quarantined FROM ledger.batch ORDER BY batch"
        ).fetchall()
        files = connection.execute("SELECT count(*) FROM ledger.file").fetchone()
    # From the first commit to the last one, without Spark's start and the first micro-batch.
    seconds = (batches[-1][0] - batches[0][0]).total_seconds()
    steady = sum(rows for _, rows in batches[1:]) / seconds if seconds else 0.0
    rows = sum(rows for _, rows in batches)
    json.dump({"rows": rows, "files": files[0] if files else 0, "steady events/s": round(steady)}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
