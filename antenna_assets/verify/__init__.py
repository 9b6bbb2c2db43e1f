"""`antenna verify`: recompute what the certificates claim, and name every difference.

Read-only. In the order of the data: `ledger`, `publications`, `landing`, `lake`, `tables`. `chain` verifies
the certificates themselves, `run` verifies the hours one by one, and `claims/` has what asset checks verify.
"""
