"""The embedded reader: Kafka's own client and DuckDB in this process, for a single machine.

Four stages work side by side, each in a thread of its own: `consumer.py` and `batches.py` read,
`streaming/verdicts/` judges and `land.py` writes, `streaming/committer.py` reads the files back and commits.
`reader.py` is what `streaming/job.py` starts. No Java, and no import of pyspark.
"""
