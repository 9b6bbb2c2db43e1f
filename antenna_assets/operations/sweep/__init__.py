"""`antenna sweep`: removes orphaned files and what is past its retention. Safe to interrupt at any point.

`run.py` has the order and the report; each other module decides about one kind of data.
"""
