"""The Spark reader: plans offsets, parses and validates messages, and writes them as parquet files.

`reader.py` is what `streaming/job.py` starts. Nothing here commits: readers differ only in how messages
become files.
"""
