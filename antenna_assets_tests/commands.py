"""A command of `antenna` run in this process: what takes a process of its own half a second or more.

Not for a command that starts Spark (it would end the session of all tests) or that is to be killed.
"""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from antenna_assets import cli


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def antenna(*arguments: str, **environment: str) -> Done:
    """Run `antenna` with these arguments and settings, on a wide terminal."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        for name, text in {"COLUMNS": "200", **environment}.items():
            patch.setenv(name, text)
        patch.setattr(sys, "argv", ["antenna", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return Done(int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue())


def refused(*arguments: str, **environment: str) -> str:
    """What is said of a command that must fail: one error, no traceback, exit code 1."""
    done = antenna(*arguments, **environment)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr
