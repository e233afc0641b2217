"""The last step of a stop: a hard exit that logs what hung."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable

from ostler import log
from ostler.aio.optional_thread import start_optional_thread

_log = logging.getLogger(__name__)
LOG_FLUSH_TIMEOUT = 5.0
"""Seconds for the lines in the log's queue; one second when the reader does not read."""
_OTHER_FLUSH_TIMEOUT = 1.0
"""Seconds for handlers of plugins and buffers of streams."""


class ShutdownWatchdog:
    """Ends the process when the stop itself does not finish, even with a blocked loop.

    Args:
        list_stuck: Returns what is still running, a line each; called on a thread of its own.
        exit_process: Ends the process at once; `os._exit` outside of tests.
    """

    def __init__(self, list_stuck: Callable[[], list[str]], exit_process: Callable[[int], None] = os._exit) -> None:
        self._list_stuck = list_stuck
        self._exit_process = exit_process
        self._done = threading.Event()

    def arm(self, timeout: float) -> None:
        """Leave in `timeout` unless `disarm` comes first. May be called again with a shorter time."""
        start_optional_thread(self._wait, "ostler-last-resort", timeout)

    def disarm(self) -> None:
        """Do not end the process: the stop has finished."""
        self._done.set()

    def _wait(self, timeout: float) -> None:
        if not self._done.wait(timeout):
            force_exit(self._list_stuck(), 1, self._exit_process)


def force_exit(stuck: list[str], code: int, exit_process: Callable[[int], None] = os._exit) -> None:
    """Log what hung, flush buffers, and end the process without waiting for threads."""
    for line in stuck:
        _log.error("still running at the end of the stop: %s", line)
    log.flush(LOG_FLUSH_TIMEOUT)
    # These may hang: a log handler of a plugin, a pipe that nobody reads.
    others = threading.Thread(target=_flush_handlers_and_streams, name="ostler-last-flush", daemon=True)
    try:
        others.start()
        others.join(_OTHER_FLUSH_TIMEOUT)
    except RuntimeError:  # no thread can be started
        pass
    exit_process(code)


def _flush_handlers_and_streams() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed or full: nowhere left to report it
            continue
