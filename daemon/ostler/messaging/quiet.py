"""Log lines about what strangers do: at most one a minute of a kind, with the number of those left out."""

from __future__ import annotations

import logging

from ostler.clock import Clock
from ostler.log.limits import RateLimited


class QuietLog:
    """`RateLimited` for texts that are made already, each with its kind.

    Args:
        log: Where lines go.
        clock: The source of time.
        interval: Seconds of silence after a line.
    """

    def __init__(self, log: logging.Logger, clock: Clock, interval: float = 60.0) -> None:
        self._limited = RateLimited(log, clock, interval)

    def warning(self, kind: str, text: str) -> bool:
        """Log a warning, unless one of its kind was logged a moment ago; return whether it was."""
        return self._limited.warning("%s", text, key=kind)
