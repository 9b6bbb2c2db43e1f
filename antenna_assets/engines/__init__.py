"""Engines read parquet files, run one SELECT and write parquet files.

They know neither hours nor generations nor Delta: `publishing/lake.py` commits what they write.
"""
