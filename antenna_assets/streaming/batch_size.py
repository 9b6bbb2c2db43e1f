"""How many messages a micro-batch takes, so that their bytes are bounded: Spark's reader counts messages alone."""

BATCH_BYTES = 256 * 2**20
"""What the values of a micro-batch come to at most, as far as the ones before tell."""

MIN_BATCH_BYTES = 8 * 2**20
"""As little as that fits into any Java that Spark starts with."""

POLLS_PER_BATCH = 16
"""How often a task asks Kafka's client for messages, which it then holds all at once."""


class BatchSize:
    """The number of messages, learned from the batches that were read; `most` as long as they are small."""

    def __init__(self) -> None:
        self._bytes_each = 0
        self._bytes = BATCH_BYTES

    def limit(self, most: int) -> int:
        """Messages a micro-batch, at most `most`."""
        return most if not self._bytes_each else max(1, min(most, self._bytes // self._bytes_each))

    def learn(self, messages: int, value_bytes: int, most: int) -> bool:
        """Take note of a batch; whether the next one should be of another size.

        Smaller after a batch that was too large, and larger again after a full one that was small.
        """
        limit = self.limit(most)
        too_large = value_bytes > self._bytes
        too_small = limit < most and messages >= limit * 0.9 and value_bytes < self._bytes // 4
        if messages and (too_large or too_small):
            self._bytes_each = max(1, -(-value_bytes // messages))
        return self.limit(most) != limit

    def out_of_memory(self, messages: int, value_bytes: int) -> None:
        """Take note of a batch for which Java had no memory: from now on one may have half of its bytes."""
        self._bytes = max(MIN_BATCH_BYTES, min(self._bytes, value_bytes // 2))
        if messages:
            self._bytes_each = max(1, -(-value_bytes // messages))
