"""Hourly facts about mobile antennas, each with a proof.

The way of the data:

    simulator/  ->  Kafka topic `devices`
    streaming/  ->  landed parquet files, ledger and live tables, in one transaction per micro-batch
    ledger      ->  which hours are closed, and what each of them is made of
    sensors     ->  asks for the closed hours that are not published yet
    assets/     ->  raw_parquet -> enriched_usage -> bytes_agg_{antenna,user,app}_1h -> users_over_quota_1h
    engines/    ->  DuckDB or Spark run the SQL of `sql/transforms/`
    lake        ->  commits parquet files to Delta tables; serving publishes rows to PostgreSQL
"""

from antenna_assets import file_modes

file_modes.apply()
