"""The base of all errors that are meant for a person, and errors that several rooms raise."""

from typing import NamedTuple


class AntennaError(Exception):
    """An expected failure. The command line prints its message without a traceback."""


class Version(NamedTuple):
    """The version of an hour's publication; fences compare versions in the order of the fields.

    `users` is 0 where no user is looked up, `attempt` where the order of attempts does not matter.
    """

    generation: int
    users: int = 0
    attempt: int = 0


class Superseded(Exception):
    """A newer version of the hour is published than the one to publish. Nothing was changed.

    Args:
        what: the asset or table and the hour's key.
        version: the one that was not published.
        newest: the one that is published.
    """

    def __init__(self, what: str, version: Version, newest: Version) -> None:
        if version.generation != newest.generation:
            held = f"generation {newest.generation}; the older generation {version.generation}"
        elif version.users != newest.users:
            held = f"version {newest.users} of the users; the older version {version.users}"
        else:
            held = "the publication of a run that began later; that of this run"
        super().__init__(f"{what} holds {held} was not published")
        self.newest = newest.generation


class StreamError(AntennaError):
    """The stream cannot continue; the message says why and what to do."""


class EngineError(AntennaError):
    """An engine could not run a SELECT, or the result does not match its schema. Nothing was written."""
