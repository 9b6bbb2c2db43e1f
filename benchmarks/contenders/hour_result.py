"""What every program of the hour is given and has to print, so that their answers can be held equal.

Only the standard library: a contender pays for nothing that it does not need.
"""

import argparse
import json
from pathlib import Path


def arguments() -> tuple[list[str], str, str]:
    """The landed files, the users' file and the folder for the two tables of the lake, which does not exist yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="folder of an hour, as `hour_data.make_hour` writes it")
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
