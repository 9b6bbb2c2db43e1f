"""The number of messages of a micro-batch, learned so that its bytes are bounded (decision 18)."""

BATCH_BYTES = 256 * 2**20
"""The most bytes that the values of a micro-batch should have, estimated from earlier ones."""

MIN_BATCH_BYTES = 8 * 2**20
"""So few bytes fit into any Java that Spark starts with."""


class BatchSize:
    """The number of messages a micro-batch, learned from the batches that were read."""

    def __init__(self) -> None:
        self._bytes_each = 0
        self._bytes = BATCH_BYTES

    def limit(self, most: int) -> int:
        """Messages a micro-batch, at most `most`: as long as messages are small."""
        return most if not self._bytes_each else max(1, min(most, self._bytes // self._bytes_each))

    def learn(self, messages: int, value_bytes: int, most: int) -> bool:
        """Record a batch; returns whether the next one should have another size.

        It is smaller after a batch that was too large, and larger again after a full one that was small.
        """
        limit = self.limit(most)
        too_large = value_bytes > self._bytes
        too_small = limit < most and messages >= limit * 0.9 and value_bytes < self._bytes // 4
        if messages and (too_large or too_small):
            self._bytes_each = max(1, -(-value_bytes // messages))
        return self.limit(most) != limit

    def out_of_memory(self, messages: int, value_bytes: int) -> None:
        """Record a batch for which Java had not enough memory: from now on a batch has half of its bytes."""
        self._bytes = max(MIN_BATCH_BYTES, min(self._bytes, value_bytes // 2))
        if messages:
            self._bytes_each = max(1, -(-value_bytes // messages))
