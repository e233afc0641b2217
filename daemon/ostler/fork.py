"""State of forked children of the daemon, and how they end.

A child has only the thread that forked, in the middle of the daemon's work. It runs the code of the
plugin that forked and nothing of the daemon: where that code comes back, `leave` ends the process.
`ostler.daemon.process.fork_guard` prepares the child; outside of a daemon `in_child` is never set.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

from ostler.redaction import redact

in_child = False
"""Whether this process is a forked child of a daemon. Read as `fork.in_child`: it changes."""

_EXIT_FAILURE = 1
_EXIT_INTERRUPTED = 130


def exit_child(error: BaseException | None = None) -> NoReturn:
    """End the forked child, with the exit code that Python would give it. In a child only; the thread that forked.

    Nothing of the daemon's is cleaned up, and nothing registered with `atexit` runs: all that belongs to the parent.

    Args:
        error: What the plugin's code raised; None when it just came back.
    """
    try:
        code, text = _exit_code_and_message(error)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):  # closed or full: nothing can be reported
                continue
        if text:
            os.write(2, redact(text).encode("utf-8", "backslashreplace"))
    except BaseException:  # noqa: BLE001 - an error that cannot be reported; a second daemon would be worse
        os._exit(_EXIT_FAILURE)
    os._exit(code)


def exit_if_child(error: BaseException | None = None) -> None:
    """End this process if it is a forked child; see `leave`."""
    if in_child:
        exit_child(error)


def forked_child_error(what: str) -> RuntimeError:
    """Return the error of a forked child that uses an object of the daemon: it would never get an answer."""
    return RuntimeError(f"{what} belongs to the daemon, but this process was forked from it")


def _exit_code_and_message(error: BaseException | None) -> tuple[int, str]:
    """Return the exit code, and the text for standard error."""
    if error is None:
        return 0, ""
    if isinstance(error, KeyboardInterrupt):
        return _EXIT_INTERRUPTED, ""
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0, ""
        return (error.code & 0xFF, "") if isinstance(error.code, int) else (_EXIT_FAILURE, f"{error.code}\n")
    lines = traceback.format_exception(error)
    return _EXIT_FAILURE, f"the forked process {os.getpid()} of a plugin failed:\n{''.join(lines)}"
