"""The archive of the embedded broker's classes (`class_archive.py`)."""

import tempfile
from pathlib import Path

from antenna_assets.stack import kafka
from antenna_assets.stack.class_archive import ensure_archive
from antenna_assets.stack.jars import kafka_classpath
from antenna_assets.stack.kafka_storage import KafkaError, class_archive
from antenna_assets.stack.kafka_topic import ensure_topic


def rehearse(target: Path) -> None:
    """Start a broker once in a folder of its own, and let Java write down the classes at its end.

    Raises:
        KafkaError: the broker failed, or wrote nothing.
        JavaError: there is no Java to run it.
    """
    with tempfile.TemporaryDirectory(prefix="antenna-") as home:
        bootstrap = kafka.start(Path(home), archive_at_exit=target)
        try:
            ensure_topic(bootstrap, "rehearsal")
        finally:
            kafka.stop(Path(home))
    if not target.is_file():
        raise KafkaError(f"expected Kafka to write {target.name} when it ended, found none")


def main() -> None:
    """Make the archive unless it exists: `python -m antenna_assets.stack.kafka_class_archive`."""
    ensure_archive(class_archive(kafka_classpath()), rehearse)


if __name__ == "__main__":
    main()
