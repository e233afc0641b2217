"""Logs a lasting problem once, and once when it is over."""

from __future__ import annotations

import logging
import threading

from ostler.clock import Clock
from ostler.errors import error_line
from ostler.log import message_id
from ostler.time_text import format_duration


class Outage:
    """Logs once that something fails, and once that it works again, however often it is retried in between.

    Safe on any thread.

    Args:
        logger: Where it is logged.
        description: What fails, as the subject of a sentence: `writing the services table`.
        clock: The source of time.
    """

    def __init__(
        self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger], description: str, clock: Clock
    ) -> None:
        self._logger = logger
        self._description = description
        self._clock = clock
        self._lock = threading.Lock()
        self._started_at: float | None = None
        self._attempts = 0
        self.why = ""
        self.since = 0.0

    @property
    def is_active(self) -> bool:
        """Whether it fails now; `why` and `since` (wall time) say more."""
        return self._started_at is not None

    def failed(self, error: BaseException) -> bool:
        """Record a failure; log it if it worked before. Return whether it was logged."""
        with self._lock:
            self._attempts += 1
            self.why = error_line(error)
            if self._started_at is not None:
                return False
            self._started_at, self.since, self._attempts = self._clock.monotonic(), self._clock.wall(), 1
        text = "%s failed; further failures are not logged until it works again: %s"
        self._logger.error(text, self._description, self.why, extra=message_id("outage"))
        return True

    def worked(self) -> bool:
        """Record a success; log it if it failed before. Return whether it was logged."""
        if not self.is_active:  # the usual case; a race here only logs it one attempt later
            return False
        with self._lock:
            began, tries = self._started_at, self._attempts
            if began is None:  # another thread has logged it
                return False
            self._started_at, self._attempts, self.why, self.since = None, 0, "", 0.0
        seconds = self._clock.monotonic() - began
        text = "%s works again after %s and %d failed attempts"
        self._logger.warning(text, self._description, format_duration(seconds), tries, extra=message_id("outage-over"))
        return True
