"""Commands of plugins in a test, run against a host in the same process."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any, NamedTuple
from unittest import mock

from ostler.cli.command_line import run_command
from ostler.cli.invocation import ClientFactory
from ostler.clock import Clock


class CommandResult(NamedTuple):
    """The end of a command.

    Attributes:
        exit_code: 0 done, 1 failed, 2 usage, 3 not running, 4 not permitted, 78 configuration.
        stdout: What it printed.
        stderr: What it reported: progress, warnings, errors.
    """

    exit_code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return what it printed with `--json`.

        Raises:
            AssertionError: It failed, or printed something else.
        """
        try:
            return json.loads(self.stdout)
        except ValueError:
            raise AssertionError(f"not JSON: {self.stdout!r}; exit code {self.exit_code}: {self.stderr}") from None


def run_in_process(
    words: Sequence[str], stdin: str, environ: Mapping[str, str], connect: ClientFactory, clock: Clock
) -> CommandResult:
    """Run the command `ostler` in this thread. Standard streams are replaced meanwhile.

    Args:
        words: Its arguments.
        stdin: Its input; it is not a terminal.
        environ: Its environment.
        connect: Creates its client.
        clock: From which it computes ages.
    """
    out, err = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        stack.enter_context(mock.patch("sys.stdin", io.StringIO(stdin)))
        code = run_command(words, environ, connect=connect, now=clock.wall)
    return CommandResult(code, out.getvalue(), err.getvalue())
