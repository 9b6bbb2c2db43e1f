"""The transformation of a replay: a user's Python file that corrects one message at a time.

The file runs with the rights of this process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from antenna_assets.operations.quarantine.files import QuarantineError


class TransformError(Exception):
    """The transformation failed on one message, which stays in quarantine."""


@dataclass(frozen=True)
class Transform:
    """A transformation and its source, which the ledger records with the replay."""

    text: str
    function: Callable[[bytes], object]

    def __call__(self, value: bytes | None) -> bytes | None:
        """Return the corrected message, or None to leave it in quarantine. A missing value is passed as
        `b""`.

        Raises:
            TransformError: the function raised, or returned neither bytes nor None.
        """
        try:
            corrected = self.function(value or b"")
        except Exception as error:
            raise TransformError(f"{type(error).__name__}: {error}") from error
        if corrected is not None and not isinstance(corrected, bytes):
            raise TransformError(f"expected bytes or None from transform, found {type(corrected).__name__}")
        return corrected


def load_transform(path: Path) -> Transform:
    """Load a Python file that defines `def transform(value: bytes) -> bytes | None`.

    Raises:
        QuarantineError: the file cannot be read or run, or does not define it.
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
