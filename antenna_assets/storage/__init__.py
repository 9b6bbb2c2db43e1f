"""Paths and files on a disk or in an object store: listing, writing, syncing and removing them.

Nothing here knows what a file holds. The folder of an attempt at a micro-batch is in `attempt.py`.
"""
