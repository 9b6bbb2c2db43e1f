"""The folder of an engine's result: created once, filled, cleaned, synced.

An object store has no folders, and a file exists whole or not at all: there it is a prefix of names.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from antenna_assets.engines.contract import WrittenFile, check_nulls
from antenna_assets.errors import EngineError
from antenna_assets.storage.disk import write_failure_message
from antenna_assets.storage.files import remove, remove_files, walk
from antenna_assets.storage.paths import file_errors, lake_path, sync

if TYPE_CHECKING:
    from upath import UPath


@contextmanager
def new_folder(target: str) -> Iterator[None]:
    """Create the folder; after the block its files are synced, or it is removed.

    It is removed if it is empty, or if the block failed.

    Raises:
        EngineError: the folder exists already, or it cannot be created or written.
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
            f"cannot create the folder {target}: {error}; check the path, its permissions and the free space"
        ) from error
    try:
        yield
        for hidden in folder.glob(".*"):
            hidden.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
            return
        # A commit will name these files, so they and the folders that lead to them must survive a power cut.
        sync([*folder.iterdir(), folder, *(parent.parent for parent in made)])
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise EngineError(write_failure_message("the folder", target, error)) from error
        raise


def files_with_rows(written: Iterable[WrittenFile], schema: pa.Schema) -> list[WrittenFile]:
    """The files of a result that hold rows; the others are deleted.

    Args:
        written: with their numbers of nulls.

    Raises:
        EngineError: a non-nullable column holds a null.
    """
    files = []
    for file in written:
        check_nulls(file.nulls, schema)
        if file.rows:
            files.append(file)
        else:
            remove_files([lake_path(file.path)])
    return files


@contextmanager
def _new_prefix(folder: "UPath") -> Iterator[None]:
    try:
        if any(True for _ in walk(folder)):
            raise EngineError(f"expected a folder that does not exist yet, found {folder}; use a new one")
    except file_errors() as error:
        raise EngineError(write_failure_message("the folder", str(folder), error)) from error
    try:
        yield
    except BaseException as error:
        # What cannot be removed now is an orphan, and a later sweep removes it.
        with suppress(*file_errors()):
            remove(walk(folder))
        if isinstance(error, file_errors()):
            raise EngineError(write_failure_message("the folder", str(folder), error)) from error
        raise


def _missing(folder: Path) -> list[Path]:
    """The folder and those of its parents that do not exist, innermost first."""
    missing = [folder]
    for parent in folder.parents:
        if parent.exists():
            break
        missing.append(parent)
    return missing
