"""Files on a disk or in an object store: paths, listing, atomic writes, fsync, removal, and full disks.

Nothing here knows the content of a file. `attempt.py` has the folder of one attempt at a micro-batch.
"""
