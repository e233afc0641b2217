"""What Python writes to stderr by itself, past the log: it goes through the log, and so through its escapes."""

from __future__ import annotations

import logging
import sys
import threading

from ostler.errors import is_a

_log = logging.getLogger(__name__)


def install_hooks() -> None:
    """Have the log told of errors that end a thread or are raised where nobody can take them, and of warnings.

    For a process that is a daemon: the hooks are the process's own. On the main thread.
    """
    threading.excepthook = _thread_ended
    sys.unraisablehook = _unraisable
    logging.captureWarnings(True)


def _thread_ended(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is None or is_a(found.exc_value, SystemExit):
        return
    name = found.thread.name if found.thread is not None else "unknown"
    _log.error("the thread %s ended with an error", name, exc_info=found.exc_value)


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    what = found.err_msg or "an error was raised where nobody can take it"
    _log.error("%s: %r", what, found.object, exc_info=found.exc_value)
