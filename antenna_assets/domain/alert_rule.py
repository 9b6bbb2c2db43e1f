"""When an alert changes: the state of one threshold of a user's quota in one period, as a pure function.

Nothing here reads a clock, the ledger or a table; `ledger/alerts.py` keeps the alerts.
"""

from dataclasses import dataclass, replace
from typing import Literal

Figure = Literal["live", "published", "taken back"]
Event = Literal["raised", "confirmed", "corrected", "resolved"]


@dataclass(frozen=True)
class PeriodUsage:
    """What is known of a user's period at one moment.

    Attributes:
        published: the bytes in its published hours.
        live: the bytes in its other hours.
        quota: bytes; None: there is no limit.
        complete: all of its hours are published.
        over: it has ended, and the stream has read past its end.
        current: it is running, or ended so recently that an alert is news; never once it was complete.
        exact: nothing is missing; otherwise the user may have used more.
    """

    published: int
    live: int
    quota: int | None
    complete: bool = False
    over: bool = False
    current: bool = True
    exact: bool = True

    @property
    def used(self) -> int:
        """All bytes of the period."""
        return self.published + self.live


@dataclass(frozen=True)
class Alert:
    """One threshold that was reached, and what its receivers know of it.

    Attributes:
        figure: where `used` comes from, or that the threshold was not reached after all.
        used: the bytes in the newest notice.
        quota: the quota in the newest notice; None if the limit was lifted.
        notices: how many there were; the last one's number.
        resolved: its period is over.
    """

    figure: Figure
    used: int
    quota: int | None
    notices: int = 1
    resolved: bool = False


def is_reached(used: int, quota: int | None, percent: int) -> bool:
    """Whether a usage is at least so many percent of a quota. Of a quota of 0, any byte is."""
    if quota is None:
        return False
    return used * 100 >= quota * percent if quota else used > 0


def follow(alert: Alert | None, usage: PeriodUsage, percent: int) -> tuple[Alert | None, list[Event]]:
    """The alert of a threshold after a look at the period, and the notices that are due, in their order.

    - *raised*: the threshold is reached in the running period. History raises nothing: neither late rows of a
      published period nor a backfill.
    - *confirmed*: what is published reaches it as well.
    - *corrected*: it is not reached any more, as a restatement or another quota shows; it is reached after
      all; or the figure of a complete period has changed.
    - *resolved*: the period is over.

    Looking again without a change yields no notice, however often and after whatever interruption.
    """
    reached = is_reached(usage.used, usage.quota, percent)
    events: list[Event]
    if alert is not None:
        alert, events = _figure(alert, usage, reached=reached)
    elif reached and usage.current:
        alert, events = _noticed(None, usage, "live"), ["raised"]
    else:
        return None, []
    if alert.figure == "live" and is_reached(usage.published, usage.quota, percent):
        alert = _noticed(alert, usage, "published")
        events = [*events, "confirmed"]
    if usage.over and not alert.resolved:
        alert = replace(_noticed(alert, usage, alert.figure), resolved=True)
        events = [*events, "resolved"]
    return alert, events


def _figure(alert: Alert, usage: PeriodUsage, *, reached: bool) -> tuple[Alert, list[Event]]:
    """The alert with the figure of now, and `corrected` or `raised` if its receivers must know."""
    if not reached:
        # Without a limit nothing is reached, whatever is missing.
        unsure = not usage.exact and usage.quota is not None
        if alert.figure == "taken back" or unsure:
            return alert, []
        return _noticed(alert, usage, "taken back"), ["corrected"]
    if alert.figure == "taken back" and usage.current and not usage.over:
        # The user got a larger quota, and has used that up as well.
        return _noticed(alert, usage, "live"), ["raised"]
    if alert.figure == "taken back":
        return _noticed(alert, usage, "published" if usage.complete else "live"), ["corrected"]
    if usage.complete and alert.figure == "published" and alert.used != usage.used:
        return _noticed(alert, usage, "published"), ["corrected"]
    return alert, []


def _noticed(alert: Alert | None, usage: PeriodUsage, figure: Figure) -> Alert:
    if alert is None:
        return Alert(figure, usage.used, usage.quota)
    return replace(alert, figure=figure, used=usage.used, quota=usage.quota, notices=alert.notices + 1)
