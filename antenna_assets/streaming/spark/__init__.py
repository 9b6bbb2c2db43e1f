"""The Spark reader: plans offsets, parses and validates messages, and writes them as parquet files.

Nothing here commits: a reader differs from another only in how messages become files.
"""
