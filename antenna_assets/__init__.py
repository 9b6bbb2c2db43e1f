"""Hourly facts about mobile antennas, each with a proof.

The rooms, from the top down. Each imports only rooms below it, which `make lint` checks:

    cli/            the `antenna` command: arguments in, one clear error out
    definitions.py  the whole Dagster system on one page, in the order of the data
    defs/           Dagster: assets, checks, sensors, jobs, partitions, resources
    operations/     status, metrics, sweep, quarantine, backfill, forget, report, doctor
    simulator/      traffic with exact answers
    verify/         recomputes what is certified
    streaming/      from Kafka to a committed micro-batch
    publishing/     replaces an hour in the lake and in the serving tables, behind its fence
    engines/        parquet in, parquet out: DuckDB or Spark run the SQL of `sql/transforms/`
    stack/          the embedded Kafka, PostgreSQL and Java
    ledger/         offsets, files, batches, hours, generations, publications, certificates
    clients/        PostgreSQL and Kafka: connections, migrations, configuration
    storage/        paths and files on a disk or in a store
    domain/         schemas, hours, lifetimes: pure
"""

from antenna_assets import file_modes

file_modes.apply()
