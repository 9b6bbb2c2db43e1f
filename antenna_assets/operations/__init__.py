"""The work behind the operators' commands: status, metrics, doctor, sweep, repair, replay, forgetting,
reports.

Each module returns its result; `cli/` has the arguments and prints.
"""
