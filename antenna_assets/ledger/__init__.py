"""The ledger: every SQL text of the schema `ledger`.

It knows which offsets were read (`offsets.py`), what landed (`batch.py`, `files.py`, `landing.py`), which hours are closed
(`closed_hours.py`), what each hour is made of (`generations.py`, `seal.py`), what is published (`publications.py`) and what is
certified (`certificate.py`). A micro-batch exists once `commit.py` has committed it. Functions take an open connection in
autocommit mode, and begin the transactions that they need.
"""
