"""Events that are made up, sent and accounted for: what the tables must hold is known before anything is read.

Nothing here imports the pipeline's code, so that the two can be compared.
"""
