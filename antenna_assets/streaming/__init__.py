"""The stream: from Kafka to committed micro-batches.

Files are landed first; then one transaction of `ledger/commit.py` commits the micro-batch. `job.py` starts,
waits and restarts, and explains recovery; `spark/` is the reader that uses Spark Structured Streaming. What
all readers share is in `session.py`, `committer.py`, `read_back.py`, `exact_ranges.py`,
`batch_size.py`, `envelope.py`; which messages are events is in `verdicts/`.
"""
