"""A look at an attempt's files when only its commit is left: whether all of them are still there.

Ages keep a sweep away from an attempt that may commit, but ages rest on clocks. This does not.
"""

from antenna_assets.domain.lifetimes import AttemptTooOld
from antenna_assets.ledger.batch import Landed
from antenna_assets.storage.files import everything_under
from antenna_assets.storage.paths import lake_path, name_within


class FilesGone(AttemptTooOld):
    """Files of an attempt are not there any more, or not as they were written: nothing was committed."""


def require_files(landed: Landed, lake: str) -> None:
    """Stop unless every file of the attempt is in the lake, with its size. Ask under the lock of the ledger's head, which
    a sweep holds as well while it removes.

    Raises:
        FilesGone: names the first that is not.
        OSError: the lake cannot be read; also the errors of a store.
    """
    root = lake_path(lake)
    # One listing a folder: in a store each file would be a question of its own.
    folders = {"/".join(file.path.split("/")[:2]) for file in landed.files}
    found = {
        name_within(root, one.path): one.size for folder in folders for one in everything_under(root / folder)
    }
    for file in landed.files:
        if found.get(file.path) != file.size:
            what = f"{found[file.path]} bytes" if file.path in found else "no file"
            raise FilesGone(
                f"expected {file.path} with {file.size} bytes in {lake}, found {what}: something has removed it since it was "
                "written, so nothing was committed; it is read from Kafka again. See that nothing but `antenna sweep` removes "
                "files of the lake"
            )
