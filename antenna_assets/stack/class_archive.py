"""Archives of loaded and verified Java classes, which every later start maps into memory.

Java calls one a dynamic class data sharing archive. It is valid for the Java and the jars that it was made
with; with others Java ignores it. `make` prepares those of Kafka and Spark; without them both start more
slowly.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from antenna_assets.errors import AntennaError
from antenna_assets.storage.atomic_files import READABLE, program_folder


def make_archive(target: Path, rehearse: Callable[[Path], None]) -> None:
    """Make an archive, or leave nothing.

    Args:
        rehearse: starts Java once, and has it write its classes to this path at its end; raises if it failed.
    """
    program_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = Path(folder) / target.name
        rehearse(written)
        written.chmod(READABLE)
        written.replace(target)


def ensure_archive(target: Path, rehearse: Callable[[Path], None]) -> None:
    """Make an archive unless it exists. A failure is only reported: an environment without it is complete."""
    if not target.is_file():
        try:
            make_archive(target, rehearse)
        except AntennaError as error:
            sys.stderr.write(f"{error}\n")
