"""Publishing an hour: the lake's Delta tables and the serving tables of PostgreSQL.

An hour is replaced as a whole, behind the fence of its table: an older generation never overwrites a newer
one.
"""
