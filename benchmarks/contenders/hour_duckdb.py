"""Plain DuckDB: the same outputs in the fewest statements."""

from pathlib import Path

import duckdb
import pyarrow.compute as pc

from benchmarks.contenders.hour_result import arguments, report

OPTIONS = "(FORMAT parquet, COMPRESSION zstd)"


def main() -> None:
    """Two COPYs, four aggregations as Arrow tables."""
    landed, users, output = arguments()
    Path(output).mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute("SET preserve_insertion_order = false")
        raw = connection.execute(
            f"COPY (SELECT * FROM read_parquet({landed})) TO '{output}/raw.parquet' {OPTIONS}"
        ).fetchall()[0][0]
        enriched = connection.execute(
            f"""COPY (SELECT r.*, u.name, u.email, u.quota FROM '{output}/raw.parquet' r
                LEFT JOIN '{users}' u ON r.id = u.id) TO '{output}/enriched.parquet' {OPTIONS}"""
        ).fetchall()[0][0]
        usage = f"'{output}/enriched.parquet'"

        def rows_and_bytes(select: str) -> tuple[int, int]:
            table = connection.sql(select).to_arrow_table()
            return table.num_rows, pc.sum(table["total"]).as_py() or 0

        report(
            raw_rows=raw,
            enriched_rows=enriched,
            sums={
                "antenna": rows_and_bytes(
                    f"SELECT antenna_id, sum(bytes)::BIGINT total FROM {usage} GROUP BY antenna_id"
                ),
                "user": rows_and_bytes(
                    f"SELECT id, max(email) email, sum(bytes)::BIGINT total FROM {usage} GROUP BY id"
                ),
                "app": rows_and_bytes(f"SELECT app, sum(bytes)::BIGINT total FROM {usage} GROUP BY app"),
            },
            over=rows_and_bytes(
                f"""SELECT id, max(email) email, max(quota) quota, sum(bytes)::BIGINT total FROM {usage}
                WHERE quota IS NOT NULL GROUP BY id HAVING sum(bytes) > max(quota)"""
            ),
        )


if __name__ == "__main__":
    main()
