"""The errors of a stream that more than one of its modules raises or tells apart."""

from antenna_assets.errors import AntennaError


class StreamError(AntennaError):
    """The stream cannot go on; the message says why and what to do."""


class QueryFailed(StreamError):
    """Spark gave the query up; another start from the ledger may succeed."""


class StateUnwritable(StreamError):
    """The state directory, or the folder of Spark's temporary files, cannot be written now."""
