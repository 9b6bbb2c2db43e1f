"""How many messages a micro-batch takes, so that their bytes are bounded: Spark's reader counts messages alone."""

BATCH_BYTES = 256 * 2**20
"""What the values of a micro-batch come to at most, as far as the ones before tell."""

POLLS_PER_BATCH = 16
"""How often a task asks Kafka's client for messages, which it then holds all at once."""


class BatchSize:
    """The number of messages, learned from the batches that were read; `most` as long as they are small."""

    def __init__(self) -> None:
        self._bytes_each = 0

    def limit(self, most: int) -> int:
        """Messages a micro-batch, at most `most`."""
        return most if not self._bytes_each else max(1, min(most, BATCH_BYTES // self._bytes_each))

    def learn(self, messages: int, value_bytes: int, most: int) -> bool:
        """Take note of a batch; whether the next one should be of another size.

        Smaller after a batch that was too large, and larger again after a full one that was small.
        """
        limit = self.limit(most)
        too_large = value_bytes > BATCH_BYTES
        too_small = limit < most and messages >= limit * 0.9 and value_bytes < BATCH_BYTES // 4
        if messages and (too_large or too_small):
            self._bytes_each = max(1, -(-value_bytes // messages))
        return self.limit(most) != limit
