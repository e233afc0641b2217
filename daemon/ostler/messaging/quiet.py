"""Log lines about what strangers do: at most one a minute of a kind, with the number of those left out."""

from __future__ import annotations

import logging

from ostler.clock import Clock

_KINDS_LIMIT = 1000


class QuietLog:
    """Logs each kind of message at most once in `interval` seconds. Not thread-safe.

    Args:
        log: Where lines go.
        clock: The source of time.
        interval: Seconds of silence after a line.
    """

    def __init__(self, log: logging.Logger, clock: Clock, interval: float = 60.0) -> None:
        self._log = log
        self._clock = clock
        self._interval = interval
        self._until: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, kind: str, text: str) -> bool:
        """Log a warning, unless one of its kind was logged a moment ago; return whether it was."""
        now = self._clock.monotonic()
        if now < self._until.get(kind, now):
            self._left_out[kind] += 1
            return False
        if len(self._until) >= _KINDS_LIMIT:
            self._until.clear()
            self._left_out.clear()
        left_out = self._left_out.get(kind, 0)
        self._until[kind], self._left_out[kind] = now + self._interval, 0
        more = f" (and {left_out} more like it since the last line)" if left_out else ""
        self._log.warning("%s%s", text, more)
        return True
