"""The domain as pure code: schemas, hours, landing folders, lifetimes, the closing rule, safe text.

Nothing here reads a clock, a file or a network.
"""
