"""Rate-limited log messages: at most one a minute of each kind, with the number of those left out."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

MAX_KEYS = 1000
"""Kinds of lines that are remembered; the oldest is forgotten then."""


class Monotonic(Protocol):
    """What is needed of a clock (`ostler.clock.Clock` fits)."""

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        ...


class RateLimitedLog:
    """Logs each kind of line at most once in an interval, and then says how many were left out. Any thread.

    Args:
        log: Where lines go.
        clock: The source of time.
        interval: Seconds between two lines of one kind.
    """

    def __init__(self, log: logging.Logger, clock: Monotonic, interval: float = 60.0) -> None:
        self._log = log
        self._clock = clock
        self._interval = interval
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}

    def warning(self, kind: str, text: str) -> bool:
        """Log a warning unless one of its kind was logged within the interval; return whether it was logged."""
        left_out = self._pop_skipped_count(kind)
        if left_out is None:
            return False
        if left_out:
            text = f"{text} (and {left_out} more of this kind since the last line)"
        self._log.warning("%s", text)
        return True

    def _pop_skipped_count(self, kind: str) -> int | None:
        """Return how many lines of this kind were left out if one is due now, None if not."""
        now = self._clock.monotonic()
        with self._lock:
            since, left_out = self._kinds.get(kind, (now - self._interval, 0))
            if now - since < self._interval:
                self._kinds[kind] = since, left_out + 1
                return None
            self._kinds.pop(kind, None)  # to the end, so that the first is always the oldest
            if len(self._kinds) >= MAX_KEYS:
                del self._kinds[next(iter(self._kinds))]
            self._kinds[kind] = now, 0
            return left_out
