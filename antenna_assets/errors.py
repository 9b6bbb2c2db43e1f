"""The one base of errors that are meant for a person: what was expected, what was found, what to do."""


class AntennaError(Exception):
    """An expected failure. Its message stands by itself; the command line prints it without a traceback."""
