"""Arguments and output of every program of the hour, so that their answers can be compared.

Only the standard library, so that no contender loads what it does not need.
"""

import argparse
import json
from pathlib import Path


def arguments() -> tuple[list[str], str, str]:
    """Return the landed files, the file of users, and the folder to create for the two lake tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="folder with landed-*.parquet and users.parquet")
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    landed = sorted(str(path) for path in given.data.glob("landed-*.parquet"))
    return landed, str(given.data / "users.parquet"), str(given.output)


def report(
    *, raw_rows: int, enriched_rows: int, sums: dict[str, tuple[int, int]], over: tuple[int, int]
) -> None:
    """Print rows and bytes of every output."""
    figures = {"raw rows": raw_rows, "enriched rows": enriched_rows}
    for table, (rows, bytes_) in {**sums, "over quota": over}.items():
        figures[f"{table} rows"] = rows
        figures[f"{table} bytes"] = bytes_
    print(json.dumps(figures))
