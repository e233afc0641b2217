"""Decides when it is worth waiting awake."""

from __future__ import annotations

_MAX_SKIPPED = 256


class SpinBackoff:
    """Decides whether to wait: after a wait in vain the next ones are skipped, twice as many each time.

    Args:
        tolerance: So many more waits in vain than successful ones are tolerated before any is skipped.
    """

    def __init__(self, tolerance: int = 0) -> None:
        self._tolerance = tolerance
        self._failures = 0
        self._skips_left = 0
        self._penalty = 1

    def should_wait(self) -> bool:
        """Return whether to wait this time."""
        if self._skips_left:
            self._skips_left -= 1
            return False
        return True

    def record_wait(self, *, succeeded: bool) -> None:
        """Record how it went."""
        if succeeded:
            self._failures = max(0, self._failures - 1)
            self._penalty, self._skips_left = 1, 0
        elif self._failures < self._tolerance:
            self._failures += 1
        else:
            self._penalty = min(2 * self._penalty, _MAX_SKIPPED)
            self._skips_left = self._penalty
