"""What a forked child of the daemon knows of itself, and how it ends.

A child has only the thread that forked, and it stands in the middle of the daemon's work. It runs the code of the
plugin that forked and nothing of the daemon: where that code comes back, `leave` ends the process.
`ostler.daemon.forked_child` prepares the child; outside of a daemon `in_child` is never set.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

from ostler.redaction import redact

in_child = False
"""Whether this process is a forked child of a daemon. Read as `fork.in_child`: it changes."""

_FAILED = 1
_INTERRUPTED = 130


def leave(error: BaseException | None = None) -> NoReturn:
    """End the forked child, with the exit code that Python would give it. In a child only; the thread that forked.

    Nothing of the daemon's is undone, and nothing registered with `atexit` runs: that is all the parent's.

    Args:
        error: What the plugin's code raised; None when it just came back.
    """
    try:
        code, text = _verdict(error)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):  # closed or full: there is nobody left to tell
                continue
        if text:
            os.write(2, redact(text).encode("utf-8", "backslashreplace"))
    except BaseException:  # noqa: BLE001 - an error that cannot be told; a second daemon would be worse
        os._exit(_FAILED)
    os._exit(code)


def leave_if_child(error: BaseException | None = None) -> None:
    """End this process if it is a forked child; see `leave`."""
    if in_child:
        leave(error)


def not_here(what: str) -> RuntimeError:
    """Return the error of a forked child that uses what is the daemon's: nobody would ever answer it."""
    return RuntimeError(f"{what} belongs to the daemon, and this is a process that was forked from it")


def _verdict(error: BaseException | None) -> tuple[int, str]:
    """Return the exit code, and what is to be said."""
    if error is None:
        return 0, ""
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED, ""
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0, ""
        return (error.code & 0xFF, "") if isinstance(error.code, int) else (_FAILED, f"{error.code}\n")
    lines = traceback.format_exception(error)
    return _FAILED, f"the forked process {os.getpid()} of a plugin failed:\n{''.join(lines)}"
