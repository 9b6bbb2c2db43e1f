"""One attempt at a micro-batch: its folder in the lake, what becomes of it, and a lake that cannot be written.

What is written into the folder is `streaming/spark/land.py`'s matter. Its files count for nothing until `ledger/commit.py` has named them in the
ledger.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from antenna_assets.domain.lifetimes import AttemptTooOld
from antenna_assets.errors import AntennaError, EngineError
from antenna_assets.storage.disk import WHAT_TO_DO, free, is_full, unwritable
from antenna_assets.storage.files import everything_under, remove_files, remove_tree
from antenna_assets.storage.paths import file_errors, is_of_a_store, lake_path, name_within


class LandingError(AntennaError):
    """Nothing could be landed; the message says where and what to do."""


class LakeUnwritable(LandingError):
    """The lake cannot be written now: its disk is full, or gone. A stream that ran before waits for it."""


class FilesGone(AttemptTooOld):
    """Files of an attempt have been removed or changed since they were written; nothing was committed."""


_PROBE_BYTES = 2**16


def attempt_folder(batch: int) -> str:
    """A folder, relative to the lake's root, that no other attempt at this batch will ever use."""
    return f"landing/{batch}-{uuid4().hex[:12]}"


class Attempt:
    """A context manager with a folder of its own, which is removed if a block fails before `keep` was called.

    Else each retry on a full disk would leave a part of a micro-batch there. It can be entered again, for what follows.

    Args:
        lake: the lake's root.
        batch: the number that the batch will probably get.
    """

    def __init__(self, lake: str, batch: int) -> None:
        self.folder = attempt_folder(batch)
        self._lake = lake_path(lake)
        self._kept = False

    def keep(self) -> None:
        """From now on the ledger may name the files: a COMMIT that fails may have succeeded."""
        self._kept = True

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None and not self._kept:
            # What cannot be removed now counts for nothing, and goes with the next sweep.
            with suppress(*file_errors()):
                remove_tree(self._lake / self.folder, within=self._lake)


def require_writable(lake: str) -> None:
    """Stop early if nothing can be written under the lake's root.

    Raises:
        LakeUnwritable: the folder cannot be made or written, or the bucket cannot be written.
        StoreError: there is no such store.
    """
    probe = lake_path(lake) / "landing" / f".probe-{uuid4().hex}"
    with lake_within_reach(lake):
        if isinstance(probe, Path):
            probe.parent.mkdir(parents=True, exist_ok=True)
        try:
            # On a full disk a file can still be made, but holds nothing.
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            remove_files([probe])


@contextmanager
def lake_within_reach(lake: str) -> Iterator[None]:
    """A block before anything is read, in which a lake that cannot be used is said with what to do.

    Raises:
        LakeUnwritable: the block failed at the lake's files.
    """
    try:
        yield
    except file_errors() as error:
        advice = "" if is_full(error) else "; make it writable"
        raise LakeUnwritable(
            f"{unwritable('the lake', lake, error)}{advice}, or point ANTENNA_LAKE elsewhere"
        ) from error


@contextmanager
def lake_watched(lake: str) -> Iterator[None]:
    """Tell a lake that is full or fails from other failures.

    Raises:
        LakeUnwritable: the block failed for that reason.
    """
    try:
        yield
    except file_errors() as error:
        raise LakeUnwritable(unwritable("the lake", lake, error)) from error
    except Exception as error:
        cause = error.__cause__
        if isinstance(error, EngineError) and cause is not None and _is_of_files(cause):
            raise LakeUnwritable(f"the lake {lake} cannot be read back: {error}") from error
        if not is_full(error):
            raise
        # Java says of a file only that there is no space for it; Spark's temporary files may lie elsewhere.
        scratch = tempfile.gettempdir()
        raise LakeUnwritable(
            f"no space left on the disk of the lake {lake} ({free(lake)}) or of Spark's temporary files in {scratch} "
            f"({free(scratch)}); {WHAT_TO_DO}"
        ) from error


def _is_of_files(error: BaseException) -> bool:
    import duckdb

    return isinstance(error, file_errors(duckdb.IOException)) or is_of_a_store(error)


def require_files(lake: str, sizes: Mapping[str, int]) -> None:
    """Stop unless every file of an attempt is in the lake, with its size.

    Ages keep a sweep away from an attempt that may commit, but ages rest on clocks; this does not. Call it under the lock
    of the ledger's head, which a sweep holds as well while it removes files.

    Args:
        sizes: bytes of each file, by its path relative to the lake's root.

    Raises:
        FilesGone: names the first file that is missing or has another size.
        OSError: the lake cannot be read; also the errors of a store.
    """
    root = lake_path(lake)
    # One listing a folder: in a store each file would be a request of its own.
    folders = {"/".join(path.split("/")[:2]) for path in sizes}
    found = {
        name_within(root, one.path): one.size for folder in folders for one in everything_under(root / folder)
    }
    for path, size in sizes.items():
        if found.get(path) != size:
            what = f"{found[path]} bytes" if path in found else "no file"
            raise FilesGone(
                f"expected {path} with {size} bytes in {lake}, found {what}: something has removed it since it was "
                "written, so nothing was committed; it is read from Kafka again. See that nothing but `antenna sweep` removes "
                "files of the lake"
            )
