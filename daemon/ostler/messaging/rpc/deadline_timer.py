"""One timer for many deadlines."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

from ostler.clock import Clock

_MIN_INTERVAL = 0.005
"""Seconds between two sweeps: ten thousand deadlines in a row must not keep the loop busy."""
_FAILURE_DELAY = 1.0
"""Seconds after a sweep that failed, which nothing in it should make it do."""


class DeadlineTimer:
    """Calls `callback` when it said it wants to be called next, or sooner when something more urgent has come.

    A timer for each request costs more than the request. Here a new deadline is one comparison, unless it is the
    earliest. On the loop's thread only.

    Args:
        clock: The source of time.
        callback: Does what is due and returns the moment of the monotonic clock to be called next, None for never.
        failure_delay: Seconds after which it is called again when it failed.
    """

    def __init__(
        self, clock: Clock, callback: Callable[[float], float | None], failure_delay: float = _FAILURE_DELAY
    ) -> None:
        self._clock = clock
        self._callback = callback
        self._failure_delay = failure_delay
        self._due_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        # A request in whose midst the timer is set is not the one that is swept.
        self._context = contextvars.copy_context()

    def schedule(self, at: float) -> None:
        """See to it that `callback` is called at this moment of the monotonic clock, or before."""
        if self._due_at is None or at < self._due_at:
            self._arm(at)

    def cancel(self) -> None:
        """Stop the timer until something is scheduled again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._due_at = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_at = at
        delay = max(0.0, at - self._clock.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._fire, context=self._context)

    def _fire(self) -> None:
        self._timer = self._due_at = None
        now = self._clock.monotonic()
        try:
            again = self._callback(now)
        except BaseException:  # logged by the loop; the deadlines of all others are kept all the same
            self.schedule(now + self._failure_delay)
            raise
        if again is not None:
            self.schedule(max(again, now + _MIN_INTERVAL))
