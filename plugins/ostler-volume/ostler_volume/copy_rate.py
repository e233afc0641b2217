"""Limits how fast a copy is, so that it leaves the disk to others."""

from __future__ import annotations

import time
from collections.abc import Callable

_SLICE = 0.1
"""Seconds between two looks whether the copy was cancelled, while it waits."""


class CopyRate:
    """The rate of one copy. On the thread of the copy.

    Args:
        rate: Bytes per second that it may copy at most, 0 for no limit.
        now: Returns the time in seconds, from any beginning.
        sleep: Waits for some seconds.
    """

    def __init__(
        self, rate: int, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._rate = rate
        self._now = now
        self._sleep = sleep
        self._began = now()

    def wait(self, done: int, check: Callable[[], object]) -> None:
        """Wait until so many bytes may have been copied; `check` ends the wait by raising."""
        if not self._rate:
            return
        due = self._began + done / self._rate
        while (left := due - self._now()) > 0:
            check()
            self._sleep(min(left, _SLICE))
