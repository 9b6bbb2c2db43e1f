"""The domain as pure code: schemas, hours, landing folders, lifetimes, the closing rule, text made safe to show.

Nothing here reads a clock, a file or a network.
"""
