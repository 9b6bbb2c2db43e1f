"""The one base of errors that are meant for a person, and the answer of every fence."""

from typing import NamedTuple


class AntennaError(Exception):
    """An expected failure. Its message stands by itself; the command line prints it without a traceback."""


class Version(NamedTuple):
    """What an hour is published at, in the order by which a fence compares.

    `users` is 0 where no user is looked up, `attempt` where the order of attempts does not matter.
    """

    generation: int
    users: int = 0
    attempt: int = 0


class Superseded(Exception):
    """The hour holds a newer version than the one to be published. Nothing was changed.

    Args:
        what: the asset or table and the hour's key.
        version: the one that was not published.
        newest: the one that the hour holds.
    """

    def __init__(self, what: str, version: Version, newest: Version) -> None:
        if version.generation != newest.generation:
            told = f"generation {newest.generation}; the older generation {version.generation}"
        elif version.users != newest.users:
            told = f"version {newest.users} of the users; the older version {version.users}"
        else:
            told = "what a run published that began later; what this one made"
        super().__init__(f"{what} holds {told} was not published")
        self.newest = newest.generation


class StreamError(AntennaError):
    """The stream cannot go on; the message says why and what to do."""


class EngineError(AntennaError):
    """An engine could not run a SELECT, or its result is not what the schema says; nothing was written."""
