"""The domain as pure code: schemas, hours, landing folders, lifetimes, the closing rule, and how names and
tables are shown.

Nothing here reads a clock, a file or a network.
"""
