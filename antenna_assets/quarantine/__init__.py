"""The quarantine as a workplace: rejected messages are listed, shown, exported and replayed.

The stream fills it (`streaming/land.py`); the transaction of a replay is `streaming/commit_replay.py`.
"""
