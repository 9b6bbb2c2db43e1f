"""`antenna verify`: everything a certificate claims, recomputed from the files and tables, and every difference named.

Nothing here changes anything. In the order of the data: `ledger`, `landing`, `lake`, `tables`; `chain` is about the
certificates themselves, and `run` goes over the hours.
"""
