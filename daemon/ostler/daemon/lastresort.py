"""The last act of a stop: a hard exit that says what hung."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable

from ostler import log

_log = logging.getLogger(__name__)
FLUSH_SECONDS = 5.0
"""Seconds for what waits in the queue of the log; a reader that does not read gets one."""
_OTHERS_SECONDS = 1.0
"""Seconds for handlers of plugins and buffers of streams."""


class LastResort:
    """Ends the process when the stop itself does not come to its end, the loop blocked included.

    Args:
        hung: Returns what is still running, a line each; called on a thread of its own.
        leave: Ends the process at once; `os._exit` outside of tests.
    """

    def __init__(self, hung: Callable[[], list[str]], leave: Callable[[int], None] = os._exit) -> None:
        self._hung = hung
        self._leave = leave
        self._done = threading.Event()

    def arm(self, seconds: float) -> None:
        """Leave in `seconds` unless `disarm` comes first. May be called again with a shorter time."""
        threading.Thread(target=self._wait, args=(seconds,), name="ostler-last-resort", daemon=True).start()

    def disarm(self) -> None:
        """The stop has come to its end."""
        self._done.set()

    def _wait(self, seconds: float) -> None:
        if not self._done.wait(seconds):
            leave_hard(self._hung(), 1, self._leave)


def leave_hard(hung: list[str], code: int, leave: Callable[[int], None] = os._exit) -> None:
    """Say what hung, flush what is buffered, and end the process without waiting for threads."""
    for line in hung:
        _log.error("left behind at the stop: %s", line)
    log.flush(FLUSH_SECONDS)
    # What belongs to others may hang: a handler of a plugin, a pipe that nobody reads.
    others = threading.Thread(target=_flush_others, name="ostler-last-flush", daemon=True)
    try:
        others.start()
        others.join(_OTHERS_SECONDS)
    except RuntimeError:  # no thread can be had any more
        pass
    leave(code)


def _flush_others() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed or full: there is nobody left to tell
            continue
