"""When it is worth to wait awake."""

from __future__ import annotations

_MOST_LEFT_OUT = 256


class SpinBackoff:
    """Whether it is worth to wait: after a wait in vain the next ones are left out, twice as many each time."""

    def __init__(self) -> None:
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
        self._penalty = 1 if came else min(2 * self._penalty, _MOST_LEFT_OUT)
        self._left_out = 0 if came else self._penalty
