"""Forgetting a user: their id, name and e-mail give way to a random pseudonym wherever they are kept, and all sums stay.

`run` is the order of it; `identity`, `lake`, `tables` and `spelled` know where an identity can be.
"""
