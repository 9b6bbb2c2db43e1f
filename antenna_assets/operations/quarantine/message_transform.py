"""The transformation of a replay: a Python file of the user's that mends one message at a time.

What becomes of the mended messages is `replay.py`'s matter. The file runs with this process's rights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from antenna_assets.operations.quarantine.files import QuarantineError


class TransformError(Exception):
    """The transformation failed on one message, which stays where it is."""


@dataclass(frozen=True)
class Transform:
    """A transformation and its text, which the ledger keeps with the replay."""

    text: str
    function: Callable[[bytes], object]

    def __call__(self, value: bytes | None) -> bytes | None:
        """The mended message; None leaves it in quarantine. A message without a value is given as `b""`.

        Raises:
            TransformError: the function raised, or returned something else.
        """
        try:
            mended = self.function(value or b"")
        except Exception as error:
            raise TransformError(f"{type(error).__name__}: {error}") from error
        if mended is not None and not isinstance(mended, bytes):
            raise TransformError(f"expected bytes or None from transform, found {type(mended).__name__}")
        return mended


def load_transform(path: Path) -> Transform:
    """The `transform` that a Python file defines, as `def transform(value: bytes) -> bytes | None`.

    Raises:
        QuarantineError: the file cannot be read or run, or defines none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = (error.strerror or error) if isinstance(error, OSError) else "it is not UTF-8"
        raise QuarantineError(f"the transformation {path} cannot be read: {what}") from error
    names: dict[str, object] = {"__name__": "transform", "__file__": str(path)}
    try:
        exec(compile(text, str(path), "exec"), names)
    except Exception as error:
        raise QuarantineError(
            f"the transformation {path} cannot be run: {type(error).__name__}: {error}"
        ) from error
    function = names.get("transform")
    if not callable(function):
        raise QuarantineError(
            f"{path} defines no `transform`; expected `def transform(value: bytes) -> bytes | None`"
        )
    return Transform(text, function)
