"""The folder that an engine writes a result into: made once, filled, tidied, synced.

Only local paths are handled here; an object store has no folders and stores a file whole or not at all.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from antenna_assets.disk import unwritable
from antenna_assets.engines.contract import EngineError


def is_local(path: str) -> bool:
    """Whether this is a path and not a URI."""
    return "://" not in path


@contextmanager
def new_folder(target: str) -> Iterator[None]:
    """Make the folder; after the block leave its files synced, or nothing if it is empty or the block failed.

    Raises:
        EngineError: the folder exists already, or it cannot be made or written.
    """
    if not is_local(target):
        yield
        return
    folder = Path(target)
    made = _missing(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError as error:
        raise EngineError(
            f"expected a folder that does not exist yet, found {error.filename}; use a new one"
        ) from error
    except OSError as error:
        raise EngineError(
            f"cannot make the folder {target}: {error}; check the path, its permissions and the free space"
        ) from error
    try:
        yield
        for litter in folder.glob(".*"):
            litter.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
            return
        # A commit names these files, so they and the names that lead to them must outlive a power cut.
        for path in (*folder.iterdir(), folder, *(parent.parent for parent in made)):
            _sync(path)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise EngineError(unwritable("the folder", target, error)) from error
        raise


def _missing(folder: Path) -> list[Path]:
    """The folder and those of its parents that do not exist, innermost first."""
    missing = [folder]
    for parent in folder.parents:
        if parent.exists():
            break
        missing.append(parent)
    return missing


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
