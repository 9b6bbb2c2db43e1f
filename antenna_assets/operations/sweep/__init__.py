"""`antenna sweep`: removes orphaned files and whatever is past its retention. Safe to interrupt at any point.

`run.py` is the order and the report; the other modules each decide for one kind of thing.
"""
