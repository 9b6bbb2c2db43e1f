"""The terms of the domain as pure code: schemas, hours, landing folders, lifetimes, when an hour closes, safe text.

Nothing here reads a clock, a file or a network.
"""
