"""The terms of the domain as pure code: schemas, hours, landing folders, lifetimes, when an hour closes, what is shown of texts and lists.

Nothing here reads a clock, a file or a network.
"""
