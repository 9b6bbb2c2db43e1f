"""The channel `log`: one JSON line on the deliverer's standard output for each notice."""

import json
import sys
from typing import TextIO

from antenna_assets.operations.alerts.outcome import Notice, Outcome, failed


class LogLine:
    """Writes notices to an output."""

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output

    def send(self, notice: Notice) -> Outcome:
        """Write the line. ASCII, so that no letter of a body is one that a terminal interprets."""
        line = {
            "id": notice.id,
            "kind": notice.kind,
            "level": notice.level,
            "created_at": notice.created_at.isoformat(),
            "body": json.loads(notice.body),
        }
        output = self._output or sys.stdout
        try:
            output.write(json.dumps(line) + "\n")
            output.flush()
        except OSError as error:
            return failed(f"the output cannot be written: {error.strerror}")
        return Outcome(True)
