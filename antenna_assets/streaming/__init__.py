"""The stream: from Kafka to committed micro-batches.

Files are landed first, then one transaction of `ledger/commit.py` makes the micro-batch exist. `job.py` starts, waits and
restarts; `micro_batch.py` handles one batch; `spark/` is the reader that uses Spark Structured Streaming. What every reader
shares lies beside it.
"""
