"""Whose turn it is to be read: no partition gets far ahead of one that has more.

While there is more than its queue holds, librdkafka fetches the partitions in one order, again and again, and
the last ones seldom or never (its issue 1854). An hour closes when every partition has passed it, so it would
wait for those.
"""

from collections.abc import Iterable, Mapping

LEAD = 300_000
"""The messages that a partition may be ahead: a micro-batch.

What was fetched of a partition is dropped when it must wait, and fetched again: up to 32 MB.
"""


class Turns:
    """The messages that were taken of each partition, and which partitions wait for others.

    Attributes:
        waiting: the partitions that are too far ahead.
    """

    def __init__(self, partitions: Iterable[int]) -> None:
        self._taken = dict.fromkeys(partitions, 0)
        self.waiting: set[int] = set()

    def take(self, messages: Mapping[int, int], read_out: Iterable[int]) -> None:
        """Count what was taken, and decide who waits until the next call.

        Args:
            messages: how many, by partition.
            read_out: partitions that have nothing more: nobody waits for them, and they owe nothing later.
        """
        for partition, count in messages.items():
            self._taken[partition] += count
        most = max(self._taken.values())
        self._taken |= dict.fromkeys(read_out, most)
        least = min(self._taken.values())
        # They wait until the others are half as far behind: not for each message again.
        self.waiting = {
            partition
            for partition, taken in self._taken.items()
            if taken - least > (LEAD // 2 if partition in self.waiting else LEAD)
        }
