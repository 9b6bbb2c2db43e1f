"""The one base of errors that are meant for a person, and the answer of every fence."""


class AntennaError(Exception):
    """An expected failure. Its message stands by itself; the command line prints it without a traceback."""


class Superseded(Exception):
    """The hour holds a newer generation than the one to be published. Nothing was changed.

    Args:
        what: the asset or table and the hour's key.
        newest: the generation that the hour holds.
    """

    def __init__(self, what: str, *, generation: int, newest: int) -> None:
        super().__init__(
            f"{what} holds generation {newest}; the older generation {generation} was not published"
        )
        self.newest = newest
