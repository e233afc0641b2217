"""Lines that could come a thousand times a second come once a minute."""

from __future__ import annotations

import logging
import threading
from typing import Any, Protocol

KEYS_LIMIT = 1000
"""Kinds of lines that are remembered; the oldest is forgotten then."""


class Monotonic(Protocol):
    """What is needed of a clock (`ostler.clock.Clock` fits)."""

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        ...


class RateLimited:
    """Logs each kind of line at most once in an interval, and then says how many were left out. Any thread.

    Args:
        logger: Where the lines go.
        clock: The source of time.
        interval: Seconds between two lines of one kind.
    """

    def __init__(
        self,
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
        clock: Monotonic,
        interval: float = 60.0,
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._interval = interval
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}

    def log(self, level: int, msg: str, *args: object, key: str = "", **kwargs: Any) -> bool:
        """Log the line unless one of its kind came within the interval; return whether it was logged.

        Args:
            level: Its level.
            msg: Its text, as for `logging`.
            args: Its arguments.
            key: Its kind; by default `msg` before its arguments are filled in.
            kwargs: What `logging` takes beside.
        """
        left_out = self._due(key or msg)
        if left_out is None:
            return False
        if left_out:
            msg, args = f"{msg} (and %d more like it since the last line)", (*args, left_out)
        self._logger.log(level, msg, *args, **kwargs)
        return True

    def warning(self, msg: str, *args: object, key: str = "", **kwargs: Any) -> bool:
        """Log a warning; see `log`."""
        return self.log(logging.WARNING, msg, *args, key=key, **kwargs)

    def error(self, msg: str, *args: object, key: str = "", **kwargs: Any) -> bool:
        """Log an error; see `log`."""
        return self.log(logging.ERROR, msg, *args, key=key, **kwargs)

    def _due(self, key: str) -> int | None:
        """Return how many lines of this kind were left out if one is due now, None if not."""
        now = self._clock.monotonic()
        with self._lock:
            since, left_out = self._kinds.get(key, (now - self._interval, 0))
            if now - since < self._interval:
                self._kinds[key] = since, left_out + 1
                return None
            self._kinds.pop(key, None)  # to the end, so that the first is always the oldest
            if len(self._kinds) >= KEYS_LIMIT:
                del self._kinds[next(iter(self._kinds))]
            self._kinds[key] = now, 0
            return left_out
