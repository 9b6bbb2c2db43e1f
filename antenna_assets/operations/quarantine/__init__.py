"""The quarantine as a workplace: rejected messages are listed, shown, exported and replayed.

The stream fills it (`streaming/spark/land.py`); the transaction of a replay is `ledger/replay.py`.
"""
