"""One timer for many deadlines."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

from ostler.clock import Clock

_AT_LEAST = 0.005
"""Seconds between two sweeps: ten thousand deadlines in a row must not keep the loop busy."""
_AFTER_FAILURE = 1.0
"""Seconds after a sweep that failed, which nothing in it should make it do."""


class Sweeper:
    """Calls `sweep` when it said it wants to be called next, or sooner when something more urgent has come.

    A timer for each request costs more than the request. Here a new deadline is one comparison, unless it is the
    earliest. On the loop's thread only.

    Args:
        clock: The source of time.
        sweep: Does what is due and returns the moment of the monotonic clock to be called next, None for never.
    """

    def __init__(self, clock: Clock, sweep: Callable[[float], float | None]) -> None:
        self._clock = clock
        self._sweep = sweep
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        # A request in whose midst the timer is set is not the one that is swept.
        self._context = contextvars.copy_context()

    def wanted(self, at: float) -> None:
        """See to it that `sweep` is called at this moment of the monotonic clock, or before."""
        if self._at is None or at < self._at:
            self._arm(at)

    def cancel(self) -> None:
        """Sweep no more, until something is wanted again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._at = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        delay = max(0.0, at - self._clock.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._fire, context=self._context)

    def _fire(self) -> None:
        self._timer = self._at = None
        now = self._clock.monotonic()
        try:
            again = self._sweep(now)
        except BaseException:  # logged by the loop; the deadlines of all others are kept all the same
            self.wanted(now + _AFTER_FAILURE)
            raise
        if again is not None:
            self.wanted(max(again, now + _AT_LEAST))
