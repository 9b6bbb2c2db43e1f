"""Why the embedded reader ends early, and is started again from the ledger."""

from antenna_assets.streaming.errors import ReaderFailed


class OffsetsGone(ReaderFailed):
    """Kafka does not have the next offset of a partition.

    The check at the start of a session names what is lost. If it finds nothing, as after a change of the
    partition's leader, the next start may succeed.
    """

    def __init__(self, topic: str, partition: int, reason: str) -> None:
        super().__init__(f"partition {partition} of {topic}: Kafka does not have the next offset: {reason}")


class RecordRefused(ReaderFailed):
    """A record batch could not be unpacked within the reader's bounds, or is damaged."""

    def __init__(self, topic: str, partition: int, reason: str) -> None:
        super().__init__(f"partition {partition} of {topic}: a record cannot be read: {reason}")
