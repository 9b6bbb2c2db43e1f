"""The stream: from Kafka to committed micro-batches.

Files are landed first; then one transaction of `ledger/commit.py` commits the micro-batch. `job.py` starts,
waits and restarts, and explains recovery. `reader.py` is the contract of the two readers: `embedded/` for a
single machine, `spark/` for a cluster. What they share is in `session.py`, `committer.py`, `read_back.py`,
`exact_ranges.py`, `ledger_consumer.py`, `envelope.py`; which messages are events is in `verdicts/`.
"""
