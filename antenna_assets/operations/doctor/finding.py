"""The result of a check of `antenna doctor`."""

from dataclasses import dataclass

UP = "run `antenna up`"
"""The fix where a service does not run."""

CONNECT_SECONDS = 3

NAMED = 3
"""Jars and torn files that one finding names."""


@dataclass(frozen=True)
class Finding:
    """The result of one check: what was found, and the fix if that is not `ok` (empty otherwise)."""

    name: str
    ok: bool
    found: str
    fix: str = ""


class Problem(Exception):
    """A failed check: what was found, and the fix."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found, self.fix = found, fix
