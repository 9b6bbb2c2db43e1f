"""One attempt at a batch: its folder in the lake, and a lake that cannot be written.

Its files are orphans until `ledger/commit.py` or `ledger/replay.py` has recorded them.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from antenna_assets.domain.lifetimes import AttemptTooOld
from antenna_assets.errors import AntennaError, EngineError
from antenna_assets.storage.disk import FREE_SPACE_HINT, free, is_full, write_failure_message
from antenna_assets.storage.files import remove_files, remove_tree, walk
from antenna_assets.storage.paths import file_errors, is_store_error, lake_path, name_within


class LandingError(AntennaError):
    """Landing failed; the message says where and what to do."""


class LakeUnwritable(LandingError):
    """The lake cannot be written now: its disk is full or not there. A running stream waits for it."""


class FilesGone(AttemptTooOld):
    """Files of an attempt were removed or changed after they were written; nothing was committed."""


_PROBE_BYTES = 2**16


def attempt_folder(batch: int) -> str:
    """A new folder name, relative to the lake's root, unique to one attempt at this batch."""
    return f"landing/{batch}-{uuid4().hex[:12]}"


class Attempt:
    """A context manager with a new folder, which is removed if a block fails before `keep` was called.

    Otherwise each retry on a full disk would leave a part of a micro-batch there. It can be entered several
    times.

    Args:
        lake: the lake's root.
        batch: the expected number of the batch.
    """

    def __init__(self, lake: str, batch: int) -> None:
        self.folder = attempt_folder(batch)
        self._lake = lake_path(lake)
        self._kept = False

    def keep(self) -> None:
        """Keep the files from now on: even a COMMIT that raised may have succeeded."""
        self._kept = True

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None and not self._kept:
            # What cannot be removed now is an orphan, which the next sweep removes.
            with suppress(*file_errors()):
                remove_tree(self._lake / self.folder, within=self._lake)


def require_writable(lake: str) -> None:
    """Require that files can be written under the lake's root.

    Raises:
        LakeUnwritable: the folder cannot be created, or folder or bucket cannot be written.
        StoreError: the store is not supported.
    """
    probe = lake_path(lake) / "landing" / f".probe-{uuid4().hex}"
    with lake_access(lake):
        if isinstance(probe, Path):
            probe.parent.mkdir(parents=True, exist_ok=True)
        try:
            # On a full disk a file can still be created, but stays empty.
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            remove_files([probe])


@contextmanager
def lake_access(lake: str) -> Iterator[None]:
    """Convert errors of the lake's files into `LakeUnwritable` with advice, before the stream starts.

    Raises:
        LakeUnwritable: the block failed for the lake's files.
    """
    try:
        yield
    except file_errors() as error:
        advice = "" if is_full(error) else "; make it writable"
        raise LakeUnwritable(
            f"{write_failure_message('the lake', lake, error)}{advice}, or point ANTENNA_LAKE elsewhere"
        ) from error


@contextmanager
def lake_errors(lake: str) -> Iterator[None]:
    """Convert errors of a full or failing lake into `LakeUnwritable`; other errors pass.

    Raises:
        LakeUnwritable: the block failed for the lake.
    """
    try:
        yield
    except file_errors() as error:
        raise LakeUnwritable(write_failure_message("the lake", lake, error)) from error
    except Exception as error:
        cause = error.__cause__
        if isinstance(error, EngineError) and cause is not None and _is_file_error(cause):
            raise LakeUnwritable(f"the lake {lake} cannot be read back: {error}") from error
        if not is_full(error):
            raise
        # Java's error names no path, and Spark's temporary files may be on another disk.
        scratch = tempfile.gettempdir()
        raise LakeUnwritable(
            f"no space left on the disk of the lake {lake} ({free(lake)}) or of Spark's temporary files in "
            f"{scratch} ({free(scratch)}); {FREE_SPACE_HINT}"
        ) from error


def _is_file_error(error: BaseException) -> bool:
    import duckdb

    return isinstance(error, file_errors(duckdb.IOException)) or is_store_error(error)


def require_files(lake: str, sizes: Mapping[str, int]) -> None:
    """Require that every file of an attempt is in the lake, with its size.

    A sweep spares young files, but ages depend on clocks; this check does not. Call it while holding the lock
    of the ledger's head, which a sweep holds while it removes files.

    Args:
        sizes: bytes of each file, by its path relative to the lake's root.

    Raises:
        FilesGone: names the first file that is missing or has another size.
        OSError: the lake cannot be read; also the errors of a store.
    """
    root = lake_path(lake)
    # One listing of each folder: in a store each file would be another request.
    folders = {"/".join(path.split("/")[:2]) for path in sizes}
    found = {name_within(root, one.path): one.size for folder in folders for one in walk(root / folder)}
    for path, size in sizes.items():
        if found.get(path) != size:
            what = f"{found[path]} bytes" if path in found else "no file"
            raise FilesGone(
                f"expected {path} with {size} bytes in {lake}, found {what}: it was removed after it was "
                "written, so nothing was committed, and its messages are read from Kafka again. Make sure "
                "that only `antenna sweep` removes files of the lake"
            )
