"""Anchors: hashes of certificates outside the database, one on each line of a file.

A chain shows a change of single certificates, but the owner of the database could rewrite all of it. A hash
where that owner cannot write proves the chain up to it. Lines of both chains, of hours and of periods, are in
one file. Each contains the hash of the line before, so that a missing line is noticed; of the lines in a log
only the hashes are checked.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from antenna_assets.errors import AntennaError
from antenna_assets.ledger.chain import ChainedCertificate
from antenna_assets.storage.disk import write_failure_message

NOTHING = "-"
_LINE = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (?P<name>(?:period )?certificate) (?P<number>\d{1,18})"
    r" sha256 (?P<sha256>[0-9a-f]{64})"
    r"(?: after (?P<after>[0-9a-f]{64}|-))?"
)


class AnchorsError(AntennaError):
    """The file of anchors cannot be read, written or trusted; the message says why."""


@dataclass(frozen=True)
class Anchor:
    """A certificate's hash.

    Attributes:
        name: of its chain, as the class of its certificates has it.
        after: the hash of the line before, if the line has it.
    """

    at: str
    name: str
    number: int
    sha256: str
    after: str | None = None

    @property
    def line(self) -> str:
        """The line of the file."""
        chained = "" if self.after is None else f" after {self.after}"
        return f"{self.at} {self.name} {self.number} sha256 {self.sha256}{chained}"


def anchor_of(certificate: ChainedCertificate, after: str | None = None) -> Anchor:
    """The anchor of a certificate, as of now."""
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Anchor(at, certificate.NAME, certificate.number, certificate.sha256, after)


def read_anchors(path: Path) -> list[Anchor]:
    """Read the anchors of a file, or of a log with other lines and prefixes.

    Raises:
        AnchorsError: it cannot be read, or has none.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise AnchorsError(f"the anchors in {path} cannot be read: {error.strerror}") from error
    anchors = list(_anchors(text.splitlines()))
    if not anchors:
        raise AnchorsError(
            f"expected lines such as `2026-11-22T10:00:00Z certificate 17 sha256 ...` in {path}, found none"
        )
    return anchors


def _anchors(lines: Iterable[str]) -> Iterator[Anchor]:
    for line in lines:
        # A log of JSON has one message with several of them in a line.
        for found in _LINE.finditer(line):
            yield Anchor(found["at"], found["name"], int(found["number"]), found["sha256"], found["after"])


def chain_breaks(anchors: Iterable[Anchor]) -> Iterator[tuple[Anchor, str]]:
    """The anchors that do not follow the line before, each with the expected hash."""
    expected = NOTHING
    for anchor in anchors:
        if anchor.after is not None:
            if anchor.after != expected:
                yield anchor, expected
            expected = hashlib.sha256(anchor.line.encode()).hexdigest()


def append_anchor(path: Path, certificate: ChainedCertificate) -> Anchor | None:
    """Append the certificate's anchor to the file, durably; None if it is the last one of its chain there.

    Raises:
        AnchorsError: the file cannot be written, its chain is broken, or it has another hash of the same
            certificate or a later certificate.
    """
    try:
        with path.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            lines = _chained(path, text)
            if _is_last(path, lines, certificate):
                return None
            after = hashlib.sha256(lines[-1].line.encode()).hexdigest() if lines else NOTHING
            anchor = anchor_of(certificate, after)
            # A line that a full disk has cut off is no anchor; this one starts on a new line.
            file.write(f"{'' if not text or text.endswith(chr(10)) else chr(10)}{anchor.line}\n")
            file.flush()
            os.fsync(file.fileno())
            return anchor
    except OSError as error:
        raise AnchorsError(write_failure_message("file of anchors", path, error)) from error


def _chained(path: Path, text: str) -> list[Anchor]:
    anchors = [anchor for anchor in _anchors(text.splitlines()) if anchor.after is not None]
    for anchor, _ in chain_breaks(anchors):
        raise AnchorsError(
            f"{path}: the line of {anchor.name} {anchor.number} does not follow the one before it; "
            "`antenna verify --anchors` shows what is missing; a new file starts a new chain"
        )
    return anchors


def _is_last(path: Path, anchors: list[Anchor], certificate: ChainedCertificate) -> bool:
    """Whether the file's last anchor of the certificate's chain is this one."""
    last = next((one for one in reversed(anchors) if one.name == certificate.NAME), None)
    if last is None or last.number < certificate.number:
        return False
    if (last.number, last.sha256) == (certificate.number, certificate.sha256):
        return True
    raise AnchorsError(
        f"{path} ends with {last.name} {last.number}, sha256 {last.sha256}, and the database's newest is "
        f"{certificate.number}, sha256 {certificate.sha256}: it is another database, or its chain was "
        "rewritten; `antenna verify --anchors` shows where"
    )
