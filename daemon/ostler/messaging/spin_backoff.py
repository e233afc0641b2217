"""When it is worth to wait awake."""

from __future__ import annotations

_MOST_LEFT_OUT = 256


class SpinBackoff:
    """Whether it is worth to wait: after a wait in vain the next ones are left out, twice as many each time.

    Args:
        tolerance: So many more waits in vain than others are put up with before any is left out.
    """

    def __init__(self, tolerance: int = 0) -> None:
        self._tolerance = tolerance
        self._in_vain = 0
        self._left_out = 0
        self._penalty = 1

    def left(self) -> bool:
        """Return whether to wait this time."""
        if self._left_out:
            self._left_out -= 1
            return False
        return True

    def learn(self, *, came: bool) -> None:
        """Take note of how it went."""
        if came:
            self._in_vain = max(0, self._in_vain - 1)
            self._penalty, self._left_out = 1, 0
        elif self._in_vain < self._tolerance:
            self._in_vain += 1
        else:
            self._penalty = min(2 * self._penalty, _MOST_LEFT_OUT)
            self._left_out = self._penalty
