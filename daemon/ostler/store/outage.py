"""Trouble that lasts is said once, and once when it is over."""

from __future__ import annotations

import logging
import threading

from ostler.clock import Clock
from ostler.errors import describe
from ostler.log import event


class Outage:
    """Says once that something is out of order, and once that it is back, however often it is tried in between.

    Safe on any thread.

    Args:
        logger: Where it is said.
        what: What is out of order, as the subject of a sentence: `the services table`.
        clock: The source of time.
    """

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger], what: str, clock: Clock) -> None:
        self._logger = logger
        self._what = what
        self._clock = clock
        self._lock = threading.Lock()
        self._began: float | None = None
        self._tries = 0
        self.why = ""
        self.since = 0.0

    @property
    def active(self) -> bool:
        """Whether it is out of order now; `why` and `since` (wall time) say more."""
        return self._began is not None

    def failed(self, error: BaseException) -> bool:
        """Take note that it failed; say so if it worked before. Return whether it was said."""
        with self._lock:
            self._tries += 1
            self.why = describe(error)
            if self._began is not None:
                return False
            self._began, self.since, self._tries = self._clock.monotonic(), self._clock.wall(), 1
        text = "%s failed; this is said once, and once more when it works again: %s"
        self._logger.error(text, self._what, self.why, extra=event("outage"))
        return True

    def worked(self) -> bool:
        """Take note that it works; say so if it failed before. Return whether it was said."""
        if not self.active:  # the way it nearly always is; a race here only says it one try later
            return False
        with self._lock:
            began, tries = self._began, self._tries
            if began is None:  # another thread has said it
                return False
            self._began, self._tries, self.why, self.since = None, 0, "", 0.0
        seconds = self._clock.monotonic() - began
        text = "%s works again after %.0f s and %d failed tries"
        self._logger.warning(text, self._what, seconds, tries, extra=event("outage-over"))
        return True
