"""Forgetting a user: their id, name and e-mail are replaced by a random pseudonym everywhere, and all sums
stay.

`run.py` is the order; the other modules each search and rewrite one kind of place, behind the fence of
`fence.py`.
"""
