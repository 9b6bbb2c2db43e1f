"""What operators do: look at the system, sweep, repair, replay, forget a user, write a report.

Each module does its work and returns what it found; `cli/` shows it.
"""
