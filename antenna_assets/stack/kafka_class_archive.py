"""An archive of the embedded broker's loaded and verified classes, which every later start maps into memory.

As that of Spark (`streaming/spark/build_class_archive.py`). `make` prepares it; a broker without it starts
more slowly.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from antenna_assets.errors import AntennaError
from antenna_assets.stack import kafka
from antenna_assets.stack.jars import kafka_classpath
from antenna_assets.stack.kafka_storage import KafkaError, class_archive
from antenna_assets.stack.kafka_topic import ensure_topic
from antenna_assets.storage.atomic_files import READABLE, program_folder


def make_archive(target: Path) -> None:
    """Start a broker once in a folder of its own, and let Java write down the classes at its end.

    Raises:
        KafkaError: the broker failed, or wrote nothing.
        JavaError: there is no Java to run it.
    """
    program_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix="antenna-") as home:
        written = Path(home) / target.name
        bootstrap = kafka.start(Path(home), archive_at_exit=written)
        try:
            ensure_topic(bootstrap, "rehearsal")
        finally:
            kafka.stop(Path(home))
        if not written.is_file():
            raise KafkaError(f"expected Kafka to write {written.name} when it ended, found none")
        # The folder for temporary files may be on another file system.
        near = target.with_suffix(".new")
        shutil.copyfile(written, near)
        near.chmod(READABLE)
        near.replace(target)


def main() -> int:
    """Make the archive unless it exists: `python -m antenna_assets.stack.kafka_class_archive`."""
    target = class_archive(kafka_classpath())
    if not target.is_file():
        try:
            make_archive(target)
        except AntennaError as error:
            # An environment without it is complete.
            sys.stderr.write(f"{error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
