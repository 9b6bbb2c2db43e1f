"""Listing, showing, exporting and replaying rejected messages.

The stream fills it (`streaming/spark/land.py`); the transaction of a replay is `ledger/replay.py`.
"""
