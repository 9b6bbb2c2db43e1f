"""The errors of the ledger that more than one of its modules raises."""

from antenna_assets.errors import AntennaError


class LedgerError(AntennaError):
    """The ledger does not allow what was asked for; the message says what it holds."""


class HourNotClosed(LedgerError):
    """The hour is still open, or nothing is known of it."""


class HourExpired(LedgerError):
    """The hour's landed files are past their retention: it is published, and never built again."""


class ForgottenMeanwhile(LedgerError):
    """A user was forgotten since the session began: what it has read before may name them. Nothing was committed."""
