"""Engines read parquet files, run one SELECT and write parquet files.

They do not know hours, generations or Delta: `publishing/lake.py` commits what they write.
"""
