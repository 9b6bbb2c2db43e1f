"""Simulated events, and the exact content that the tables must have after them.

What must result is computed independently of the pipeline, so that the two can be compared: the modules named
in `INDEPENDENT` import only each other and `errors`, the package's base of exceptions. The others use the
pipeline's
clients: to send messages, and to read the tables, the ledger and the rejected files that are compared.
"""

INDEPENDENT = ("answers", "crowd", "event_json", "events", "malformed", "scenario")
"""The modules that decide what is sent and what must result."""
