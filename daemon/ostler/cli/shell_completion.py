"""Completion of the command in shells, with the scripts and the protocol of typer.

A shell's script runs `ostler` with `_OSTLER_COMPLETE` set, and the words typed so far in further variables.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

from ostler.errors import EXIT_FAILURE

VARIABLE = "_OSTLER_COMPLETE"
"""Set by the script of a shell: what it asks for."""
_PROGRAM = "ostler"


def completion_script(shell: str) -> str:
    """Return the script for `bash`, `zsh` or `fish`."""
    from ostler.cli.command_tree import root_command  # this command is a part of it

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        complete(root_command(), f"source_{shell}")
    return output.getvalue()


def complete(command: Any, instruction: str) -> int:
    """Print what a shell asks for, and return the exit code.

    Args:
        command: The command with all its sub-commands.
        instruction: The value of `VARIABLE`.
    """
    # 5 ms: only for completion. What its own apps call first is not exported, but has been there since its beginning.
    from typer.completion import completion_init, shell_complete  # type: ignore[attr-defined]

    completion_init()
    try:
        return shell_complete(command, {}, _PROGRAM, VARIABLE, instruction)
    except Exception:  # noqa: BLE001 - a shell shows what is printed in the middle of the line that is typed
        return EXIT_FAILURE
