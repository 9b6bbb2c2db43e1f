"""Errors that several modules of the ledger raise."""

from antenna_assets.errors import AntennaError


class LedgerError(AntennaError):
    """The ledger's state does not allow an operation; the message says what it is."""


class HourNotClosed(LedgerError):
    """The hour is still open, or unknown to the ledger."""


class HourExpired(LedgerError):
    """Landed files of the hour are past their retention: it stays as it is published."""


class ForgottenMeanwhile(LedgerError):
    """A user was forgotten since the session began, which may have read them. Nothing was committed."""
