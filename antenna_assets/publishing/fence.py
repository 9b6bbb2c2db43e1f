"""The fence of a lake table: which replacement of an hour a loaded version admits, and what it sets.

An hour's versions are Delta's application transactions: `<hour>` is its generation, `<hour>/<tag>` a version
kept with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from antenna_assets.domain.hours import hour_key
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.errors import Superseded, Version

USERS_VERSION = "users_version"
"""Tag of the users' version that an hour's rows were joined with."""

TAGS = (USERS_VERSION,)
"""The versions that an hour can carry besides its generation. Delta lists no keys, so they are named here."""

_ATTEMPT = "attempt"
_NO_TAG = -1


@dataclass(frozen=True)
class Replacement:
    """Files that are to become an hour of a table.

    Attributes:
        tags: versions to keep with the hour, of `TAGS`; those of an earlier publication are dropped.
        attempt: what `ledger.begin_publication` returned; None if the order of attempts does not matter.
        metadata: for readers of the table's history.
    """

    table: str
    hour: datetime
    generation: int
    files: Sequence[WrittenFile]
    tags: Mapping[str, int] = field(default_factory=dict)
    attempt: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := self.tags.keys() - set(TAGS):
            raise ValueError(f"expected tags of {', '.join(TAGS)}; found {', '.join(sorted(unknown))}")

    @property
    def name(self) -> str:
        """The table and the hour, for messages."""
        return f"{self.table} of {hour_key(self.hour)}"

    def superseded_on(self, loaded: Mapping[str, int]) -> Superseded | None:
        """Why it must not be committed: the loaded version holds the hour at a newer version.

        Generations are compared first, then users' versions, then attempts.

        Args:
            loaded: the application transactions of the loaded version.
        """
        held = _version(loaded, self.hour)
        if held is None:
            return None
        # What is not given is not compared: no table has it for some hours only.
        given = Version(
            self.generation,
            self.tags.get(USERS_VERSION, held.users),
            held.attempt if self.attempt is None else self.attempt,
        )
        return Superseded(self.name, given, held) if held > given else None

    def versions(self, loaded: Mapping[str, int]) -> dict[str, int]:
        """The application transactions of the commit, by their key."""
        key = hour_key(self.hour)
        versions = {key: self.generation}
        for tag in self.tags.keys() | hour_tags(loaded, self.hour).keys():
            versions[f"{key}/{tag}"] = self.tags.get(tag, _NO_TAG)
        if self.attempt is not None:
            versions[f"{key}/{_ATTEMPT}"] = self.attempt
        return versions


def history(replacements: Sequence[Replacement]) -> dict[str, str | int]:
    """What the table's history says of a commit: its hours, and their generations in the same order."""
    metadata = {name: value for one in replacements for name, value in one.metadata.items()}
    return {
        "hours": " ".join(hour_key(one.hour) for one in replacements),
        "generations": " ".join(str(one.generation) for one in replacements),
        **metadata,
    }


def hour_tags(loaded: Mapping[str, int], hour: datetime) -> dict[str, int]:
    """The tags that a loaded version keeps with an hour."""
    found = {tag: loaded.get(f"{hour_key(hour)}/{tag}") for tag in TAGS}
    return {tag: version for tag, version in found.items() if version is not None and version != _NO_TAG}


def _version(loaded: Mapping[str, int], hour: datetime) -> Version | None:
    """What the fence compares with; None if the hour was never published."""
    generation = loaded.get(hour_key(hour))
    if generation is None:
        return None
    attempt = loaded.get(f"{hour_key(hour)}/{_ATTEMPT}", 0)
    return Version(generation, hour_tags(loaded, hour).get(USERS_VERSION, 0), attempt)
