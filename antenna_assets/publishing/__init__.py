"""Publishing an hour: the lake's Delta tables and the serving tables of PostgreSQL.

An hour is replaced as a whole, behind the fence of its table: a newer generation is never overwritten by an older one.
"""
