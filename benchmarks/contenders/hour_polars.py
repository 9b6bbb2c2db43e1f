"""Polars: lazy, with its streaming engine, as its documentation recommends for files larger than memory."""

from pathlib import Path

import polars as pl

from benchmarks.contenders.hour_result import arguments, report


def main() -> None:
    """Two sinks, four aggregations collected by the streaming engine."""
    landed, users, output = arguments()
    Path(output).mkdir(parents=True)
    pl.scan_parquet(landed).sink_parquet(f"{output}/raw.parquet", compression="zstd")
    raw, known = pl.scan_parquet(f"{output}/raw.parquet"), pl.scan_parquet(users)
    raw.join(known, on="id", how="left").sink_parquet(f"{output}/enriched.parquet", compression="zstd")
    usage = pl.scan_parquet(f"{output}/enriched.parquet")
    total = pl.col("bytes").sum().alias("total")
    user = usage.group_by("id")
    results = pl.collect_all(
        [
            usage.group_by("antenna_id").agg(total),
            user.agg(pl.col("email").max(), total),
            usage.group_by("app").agg(total),
            usage.filter(pl.col("quota").is_not_null())
            .group_by("id")
            .agg(pl.col("email").max(), pl.col("quota").max(), total)
            .filter(pl.col("total") > pl.col("quota")),
            raw.select(pl.len()),
            usage.select(pl.len()),
        ],
        engine="streaming",
    )
    sums = [(table.height, int(table["total"].sum())) for table in results[:4]]
    report(
        raw_rows=results[4].item(),
        enriched_rows=results[5].item(),
        sums=dict(zip(("antenna", "user", "app"), sums[:3], strict=True)),
        over=sums[3],
    )


if __name__ == "__main__":
    main()
