"""Verdicts on messages: which are events, with which values, and why the others are rejected.

`rules.py` has the one strict function, in plain Python; `judged.py` judges whole batches: messages in a usual
layout (`layouts.py`) are cut and verified by DuckDB, all others go through the strict function. Nothing here
knows Kafka, files or Spark, or reads a clock.
"""
