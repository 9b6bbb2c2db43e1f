"""The folder that an engine writes a result into: made once, filled, tidied, synced.

An object store has no folders and keeps a file whole or not at all: there it is names that begin alike.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from antenna_assets.errors import EngineError
from antenna_assets.storage.disk import unwritable
from antenna_assets.storage.files import everything_under, remove
from antenna_assets.storage.paths import file_errors, lake_path, sync

if TYPE_CHECKING:
    from upath import UPath


@contextmanager
def new_folder(target: str) -> Iterator[None]:
    """Make the folder; after the block leave its files synced, or nothing if it is empty or the block failed.

    Raises:
        EngineError: the folder exists already, or it cannot be made or written.
    """
    folder = lake_path(target)
    if not isinstance(folder, Path):
        with _new_prefix(folder):
            yield
        return
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
        sync([*folder.iterdir(), folder, *(parent.parent for parent in made)])
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise EngineError(unwritable("the folder", target, error)) from error
        raise


@contextmanager
def _new_prefix(folder: "UPath") -> Iterator[None]:
    try:
        if any(True for _ in everything_under(folder)):
            raise EngineError(f"expected a folder that does not exist yet, found {folder}; use a new one")
    except file_errors() as error:
        raise EngineError(unwritable("the folder", str(folder), error)) from error
    try:
        yield
    except BaseException as error:
        # What cannot be removed now is named by nothing, and goes with a later sweep.
        with suppress(*file_errors()):
            remove(everything_under(folder))
        if isinstance(error, file_errors()):
            raise EngineError(unwritable("the folder", str(folder), error)) from error
        raise


def _missing(folder: Path) -> list[Path]:
    """The folder and those of its parents that do not exist, innermost first."""
    missing = [folder]
    for parent in folder.parents:
        if parent.exists():
            break
        missing.append(parent)
    return missing
